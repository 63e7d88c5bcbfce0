// Rounding to the values of a floating format at random, in units of a scale for each block, a row
// at a time: one pass over memory, two where all scales share a unit. The arithmetic is that of
// grids.py and grid.py, operation for operation, so that codes and scales agree to the bit.

#include <cmath>
#include <limits>

#include "rows.h"

namespace {

// How scales are written: as they are, as powers of two, in e4m3 of one unit.
enum Kind : i64 { FLOAT, POWER, E4M3 };

int32_t bits_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// As integers magnitudes have the order of their values, and NaN is above all.
inline int32_t greater(int32_t most, float value) {
  const int32_t magnitude = bits_of(value) & 0x7FFFFFFF;
  return magnitude > most ? magnitude : most;
}

// The largest magnitude; NaN where one is.
float largest_of(const float* z, i64 count) {
  int32_t most = 0;
  if (count == 16)  // a vector: of a count that it knows the compiler makes no loop
    for (int j = 0; j < 16; j++) most = greater(most, z[j]);
  else if (count == 32)
    for (int j = 0; j < 32; j++) most = greater(most, z[j]);
  else
    for (i64 j = 0; j < count; j++) most = greater(most, z[j]);
  return float_of(most);
}

// That of each block of a row, the last of which may be short.
void find_largest(const float* z, i64 p, i64 block, float* largest) {
  for (i64 start = 0; start < p; start += block)
    *largest++ = largest_of(z + start, p - start < block ? p - start : block);
}

// The least scale at which `largest` is not above `end`.
inline float least_scale(float largest, float end) {
  const float scale = largest / end;
  // of what is not finite nothing is larger
  return largest / scale > end ? float_of(bits_of(scale) + 1) : scale;
}

// The exponent of the least power of two that is enough, within +-127; -128 of what is not finite.
inline int8_t power_of(float need) {
  const int32_t bits = bits_of(need);
  int32_t exponent = ((bits + 0x7FFFFF) >> 23) - 127;
  exponent = bits <= 0x400000 ? -127 : exponent;
  exponent = bits == 0 ? -1 : exponent;
  return int8_t(bits >= 0x7F800000 || exponent > 127 ? -128 : exponent);
}

inline float power(int8_t exponent) {
  const int32_t bits = exponent == -127 ? 0x400000 : (exponent + 127) << 23;
  return exponent == -128 ? std::numeric_limits<float>::quiet_NaN() : float_of(bits);
}

// The least e4m3 that is enough in that unit.
inline uint8_t e4m3_of(float need, float unit) {
  float v = need / unit * (1 + 4 * std::numeric_limits<float>::epsilon());
  v = v > 448 ? 448 : v;
  const int32_t bits = bits_of(v), normal = ((bits + 0xFFFFF) >> 20) - (120 << 3);
  const int32_t code = v < 0x1p-6f ? int32_t(std::ceil(v * 0x1p9f)) : normal;
  return uint8_t(v == v ? code : 0x7F | (bits >> 24 & 0x80));
}

inline float e4m3(uint8_t code) {
  const float size = code < 8 ? float(code) * 0x1p-9f : float_of((code + (120 << 3)) << 20);
  return code < 0x7F ? size : std::numeric_limits<float>::quiet_NaN();
}

// Scales first .. first + count of those that were written.
void read_scales(i64 kind, const void* kept, i64 first, i64 count, const float* unit,
                 float* scale) {
  const float* floats = static_cast<const float*>(kept) + first;
  const int8_t* powers = static_cast<const int8_t*>(kept) + first;
  const uint8_t* codes = static_cast<const uint8_t*>(kept) + first;
  if (kind == FLOAT) std::memcpy(scale, floats, count * sizeof *scale);
  if (kind == POWER)
    for (i64 b = 0; b < count; b++) scale[b] = power(powers[b]);
  if (kind == E4M3)
    for (i64 b = 0; b < count; b++) scale[b] = e4m3(codes[b]) * *unit;
}

// The least scales at which nothing is beyond `end`; they take the place of the largest magnitudes.
void write_scales(i64 kind, float* scale, i64 first, i64 count, float end, const float* unit,
                  void* kept) {
  int8_t* powers = static_cast<int8_t*>(kept) + first;
  uint8_t* codes = static_cast<uint8_t*>(kept) + first;
  for (i64 b = 0; b < count; b++) scale[b] = least_scale(scale[b], end);
  if (kind == FLOAT) std::memcpy(static_cast<float*>(kept) + first, scale, count * sizeof *scale);
  if (kind == POWER)
    for (i64 b = 0; b < count; b++) powers[b] = power_of(scale[b]);
  if (kind == E4M3) {
    const float each = *unit;
    for (i64 b = 0; b < count; b++) codes[b] = e4m3_of(scale[b], each);
  }
  read_scales(kind, kept, first, count, unit, scale);
}

// Zero and +-(1 + m / 2^digits) 2^e from e = start - 127 on, below it even steps: the numbers of
// values go from 0 to 2 * mid.
struct Format {
  int32_t digits, start, mid;
  Format(i64 fraction, i64 least, i64 top) : digits(fraction), start(127 + least), mid(top) {}

  // The number of one of the two neighbours of v.
  inline int32_t round(float v, uint16_t number) const {
    const float size = std::fabs(v);
    int32_t exponent = bits_of(size) >> 23;
    exponent = exponent > start ? exponent : start;
    // over a gap between neighbours, which is a power of two: all that follows is exact
    const float steps = size * float_of((254 << 23) - ((exponent - digits) << 23));
    const int32_t few = int32_t(steps), sign = bits_of(v) >> 31;
    const int32_t place = few + ((exponent - start) << digits);
    const float up = std::fabs(steps - float(few) + float(sign));  // of a negative one the rest
    int32_t level = mid + (place ^ sign) + (uniform(number) < up);  // ~place is -place - 1
    level = level < 2 * mid ? level : 2 * mid;
    return level > 0 ? level : 0;
  }

  inline float value(uint8_t level) const {
    const int32_t signed_place = int32_t(level) - mid;
    const int32_t place = signed_place < 0 ? -signed_place : signed_place;
    const float even = float(place) * float_of((start - digits) << 23);
    const float normal = float_of((place + ((start - 1) << digits)) << (23 - digits));
    const float size = place >> digits ? normal : even;
    return float_of(bits_of(size) | (signed_place & int32_t(0x80000000)));
  }
};

}  // namespace

extern "C" {

// The largest magnitude of each block of a row, the last of which may be short; NaN where one is.
void largest_magnitudes(const float* x, i64 stride, i64 n, i64 p, i64 block, float* largest) {
  const i64 blocks = (p + block - 1) / block;
  for (i64 i = 0; i < n; i++, x += stride, largest += blocks) find_largest(x, p, block, largest);
}

// Rows first .. first + n of a matrix, to numbers of values in units of the scale of each block,
// which is written to `kept`: by `kind`, the least at which nothing is beyond `end`. `largest` is
// null, or what `largest_magnitudes` gives.
void round_floating(const float* x, i64 stride, i64 first, i64 n, i64 p, i64 block, i64 bits,
                    i64 fraction, i64 least, i64 top, i64 end, i64 kind, const float* largest,
                    const float* unit, uint64_t seed, i64 stream, uint8_t* packed, void* kept) {
  const i64 blocks = (p + block - 1) / block, bytes = (p * bits + 7) / 8;
  const Format format(fraction, least, top);
  Row row(p);
  std::vector<float> scaled(p), scale(blocks);
  for (i64 i = 0; i < n; i++, x += stride, packed += bytes) {
    if (largest)
      std::memcpy(scale.data(), largest + i * blocks, blocks * sizeof(float));
    else
      find_largest(x, p, block, scale.data());
    write_scales(kind, scale.data(), i * blocks, blocks, float(end), unit, kept);
    for (i64 b = 0; b < blocks; b++) {
      const i64 start = b * block, stop = start + block < p ? start + block : p;
      const float each = scale[b] == 0 ? 1 : scale[b];
      for (i64 j = start; j < stop; j++) scaled[j] = x[j] / each;
    }
    // the whole row at once: a block is shorter than a vector of bytes
    const uint16_t* numbers = row.numbers(seed, first + i, stream);
    uint8_t* levels = row.levels.data();
    for (i64 j = 0; j < p; j++) levels[j] = uint8_t(format.round(scaled[j], numbers[j]));
    pack_row(bits, levels, bytes, packed);
  }
}

// value * scale.
void restore_floating(const uint8_t* packed, i64 n, i64 p, i64 block, i64 bits, i64 fraction,
                      i64 least, i64 top, i64 kind, const void* kept, const float* unit,
                      float* out) {
  const i64 blocks = (p + block - 1) / block, bytes = (p * bits + 7) / 8;
  const Format format(fraction, least, top);
  Row row(p);
  std::vector<float> scale(blocks);
  uint8_t* levels = row.levels.data();
  for (i64 i = 0; i < n; i++, packed += bytes, out += p) {
    read_scales(kind, kept, i * blocks, blocks, unit, scale.data());
    unpack_row(bits, packed, bytes, levels);
    for (i64 j = 0; j < p; j++) out[j] = format.value(levels[j]);
    for (i64 b = 0; b < blocks; b++) {
      const i64 stop = (b + 1) * block < p ? (b + 1) * block : p;
      for (i64 j = b * block; j < stop; j++) out[j] *= scale[b];
    }
  }
}

// values[code] * scale, where the values are of no format.
void restore_values(const uint8_t* packed, i64 n, i64 p, i64 block, i64 bits, const float* values,
                    const float* scale, float* out) {
  const i64 blocks = (p + block - 1) / block, bytes = (p * bits + 7) / 8;
  Row row(p);
  uint8_t* levels = row.levels.data();
  for (i64 i = 0; i < n; i++, packed += bytes, scale += blocks, out += p) {
    unpack_row(bits, packed, bytes, levels);
    for (i64 j = 0; j < p; j++) out[j] = values[levels[j]];
    for (i64 b = 0; b < blocks; b++) {
      const i64 stop = (b + 1) * block < p ? (b + 1) * block : p;
      for (i64 j = b * block; j < stop; j++) out[j] *= scale[b];
    }
  }
}

}  // extern "C"

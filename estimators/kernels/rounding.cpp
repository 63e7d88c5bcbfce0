// Rounding at random, packing and restoring, a row at a time: each is one pass over memory. The
// numbers are those of counter.py and the arithmetic that of rounding.py, operation for operation,
// so that codes agree to the bit. Loops are written so that a compiler makes vectors of them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

using i64 = int64_t;

namespace {

constexpr int LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));

// The 16-bit numbers of a row, eight for each call of Philox 4x32 with ten rounds.
void draw(uint64_t seed, uint32_t row, uint32_t stream, i64 calls, uint32_t* out) {
  uint32_t low[10], high[10];
  for (int i = 0; i < 10; i++) {
    low[i] = uint32_t(seed) + i * 0x9E3779B9u;
    high[i] = uint32_t(seed >> 32) + i * 0xBB67AE85u;
  }
  for (i64 call = 0; call < calls; call++) {
    uint32_t a = uint32_t(call), b = row, c = stream, d = 0;
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
      uint64_t left = uint64_t(a) * 0xD2511F53u, right = uint64_t(c) * 0xCD9E8D57u;
      a = uint32_t(right >> 32) ^ b ^ low[i];
      b = uint32_t(right);
      c = uint32_t(left >> 32) ^ d ^ high[i];
      d = uint32_t(left);
    }
    out[4 * call] = a, out[4 * call + 1] = b, out[4 * call + 2] = c, out[4 * call + 3] = d;
  }
}

inline float uniform(uint16_t number) { return (float(number) + 0.5f) * 0x1p-16f; }

// Least and largest of some numbers, NaN where one is.
void ends(const float* z, i64 count, float* least, float* largest) {
  Lanes low, high, bad = {};
  const float inf = std::numeric_limits<float>::infinity();
  for (int l = 0; l < LANES; l++) low[l] = inf, high[l] = -inf;
  i64 i = 0;
  for (; i + LANES <= count; i += LANES) {
    Lanes v;
    std::memcpy(&v, z + i, sizeof v);
    low = v < low ? v : low;
    high = v > high ? v : high;
    bad = v == v ? bad : v;
  }
  float lo = inf, hi = -inf, nan = 0;
  for (int l = 0; l < LANES; l++) {
    lo = low[l] < lo ? low[l] : lo;
    hi = high[l] > hi ? high[l] : hi;
    nan = bad[l] == bad[l] ? nan : bad[l];
  }
  for (; i < count; i++) {
    lo = z[i] < lo ? z[i] : lo;
    hi = z[i] > hi ? z[i] : hi;
    nan = z[i] == z[i] ? nan : z[i];
  }
  *least = nan == nan ? lo : nan;
  *largest = nan == nan ? hi : nan;
}

// Numbers below 2^bits into bytes, the first in the lowest bits; `levels` is padded by zeros.
template <typename Word, int BITS>
void pack(const uint8_t* levels, i64 bytes, uint8_t* packed) {
  for (i64 i = 0; i < bytes; i++) {
    Word word, byte = 0;
    std::memcpy(&word, levels + i * sizeof word, sizeof word);
    for (unsigned k = 0; k < sizeof word; k++) byte |= word >> ((8 - BITS) * k);
    packed[i] = uint8_t(byte);
  }
}

template <typename Word, int BITS>
void unpack(const uint8_t* packed, i64 bytes, uint8_t* levels) {
  const Word mask = Word(~Word(0)) / 255 * ((1 << BITS) - 1);
  for (i64 i = 0; i < bytes; i++) {
    Word word = 0, byte = packed[i];
    for (unsigned k = 0; k < sizeof word; k++) word |= byte << ((8 - BITS) * k);
    word &= mask;
    std::memcpy(levels + i * sizeof word, &word, sizeof word);
  }
}

void pack_row(i64 bits, const uint8_t* levels, i64 bytes, uint8_t* packed) {
  if (bits == 1) pack<uint64_t, 1>(levels, bytes, packed);
  if (bits == 2) pack<uint32_t, 2>(levels, bytes, packed);
  if (bits == 4) pack<uint16_t, 4>(levels, bytes, packed);
  if (bits == 8) std::memcpy(packed, levels, bytes);
}

void unpack_row(i64 bits, const uint8_t* packed, i64 bytes, uint8_t* levels) {
  if (bits == 1) unpack<uint64_t, 1>(packed, bytes, levels);
  if (bits == 2) unpack<uint32_t, 2>(packed, bytes, levels);
  if (bits == 4) unpack<uint16_t, 4>(packed, bytes, levels);
  if (bits == 8) std::memcpy(levels, packed, bytes);
}

// The numbers by which a row is rounded, and its levels before they are packed.
struct Row {
  i64 calls;
  std::vector<uint32_t> words;
  std::vector<uint8_t> levels;
  explicit Row(i64 p) : calls((p + 7) / 8), words(4 * calls), levels(8 * calls + 8) {}
  const uint16_t* numbers(uint64_t seed, i64 row, uint32_t stream) {
    draw(seed, uint32_t(row), stream, calls, words.data());
    return reinterpret_cast<const uint16_t*>(words.data());  // lower halves first
  }
};

}  // namespace

extern "C" {

// The numbers of rows first .. first + n, as they are drawn.
void draw_rows(i64 first, i64 n, i64 calls, uint64_t seed, i64 stream, uint32_t* out) {
  for (i64 i = 0; i < n; i++) draw(seed, uint32_t(first + i), stream, calls, out + 4 * calls * i);
}

// Rows first .. first + n of a matrix, less `mean` unless it is null, to 2^bits even steps between
// the ends of each group.
void round_even(const float* x, i64 stride, const float* mean, i64 first, i64 n, i64 p, i64 group,
                i64 bits, uint64_t seed, i64 stream, uint8_t* packed, float* low, float* step) {
  const i64 groups = p / group, bytes = (p * bits + 7) / 8;
  const int most = (1 << bits) - 1;
  Row row(p);
  std::vector<float> centred(mean ? p : 0);
  for (i64 i = 0; i < n; i++, x += stride, packed += bytes, low += groups, step += groups) {
    const float* z = x;
    if (mean) {
      for (i64 j = 0; j < p; j++) centred[j] = x[j] - mean[j];
      z = centred.data();
    }
    const uint16_t* numbers = row.numbers(seed, first + i, stream);
    uint8_t* levels = row.levels.data();
    for (i64 g = 0; g < groups; g++) {
      const float* v = z + g * group;
      float least, largest;
      ends(v, group, &least, &largest);
      const float span = largest - least;
      float delta = span / most;
      if (delta * most < span)
        delta = std::nextafterf(delta, std::numeric_limits<float>::infinity());
      low[g] = least, step[g] = delta;
      const float per = delta == 0 ? 1 : delta;
      for (i64 j = 0; j < group; j++) {
        const float steps = (v[j] - least) / per;
        const int down = int(steps);
        const int level = down + (uniform(numbers[g * group + j]) < steps - float(down));
        levels[g * group + j] = uint8_t(level < most ? level : most);
      }
    }
    pack_row(bits, levels, bytes, packed);
  }
}

// low + step * level.
void restore_even(const uint8_t* packed, i64 n, i64 p, i64 group, i64 bits, const float* low,
                  const float* step, float* out) {
  const i64 groups = p / group, bytes = (p * bits + 7) / 8;
  Row row(p);
  uint8_t* levels = row.levels.data();
  for (i64 i = 0; i < n; i++, packed += bytes, low += groups, step += groups, out += p) {
    unpack_row(bits, packed, bytes, levels);
    for (i64 g = 0; g < groups; g++) {
      const float least = low[g], delta = step[g];
      for (i64 j = g * group; j < (g + 1) * group; j++)
        out[j] = least + float(levels[j]) * delta;
    }
  }
}

// The largest magnitude of each block of a row, the last of which may be short; NaN where one is.
void largest_magnitudes(const float* x, i64 stride, i64 n, i64 p, i64 block, float* largest) {
  const i64 blocks = (p + block - 1) / block;
  for (i64 i = 0; i < n; i++, x += stride, largest += blocks)
    for (i64 b = 0; b < blocks; b++) {
      const i64 start = b * block, count = p - start < block ? p - start : block;
      float lo, hi;
      ends(x + start, count, &lo, &hi);
      largest[b] = lo == lo ? std::fabs(-lo > hi ? lo : hi) : lo;  // and no negative zero
    }
}

// To the values of a floating format, zero and +-(1 + m / 2^fraction) 2^e from e = least on (below,
// even steps), as numbers from 0 to 2 * top, in units of each block's scale.
void round_floating(const float* x, i64 stride, i64 first, i64 n, i64 p, i64 block, i64 bits,
                    i64 fraction, i64 least, i64 top, const float* scale, uint64_t seed,
                    i64 stream, uint8_t* packed) {
  const i64 blocks = (p + block - 1) / block, bytes = (p * bits + 7) / 8;
  const int32_t digits = int32_t(fraction), start = int32_t(127 + least), mid = int32_t(top);
  Row row(p);
  for (i64 i = 0; i < n; i++, x += stride, scale += blocks, packed += bytes) {
    const uint16_t* numbers = row.numbers(seed, first + i, stream);
    uint8_t* levels = row.levels.data();
    for (i64 b = 0; b < blocks; b++) {
      const float unit = scale[b] == 0 ? 1 : scale[b];
      const i64 end = (b + 1) * block < p ? (b + 1) * block : p;
      for (i64 j = b * block; j < end; j++) {
        const float v = x[j] / unit, size = std::fabs(v);
        int32_t word, magnitude;
        std::memcpy(&word, &v, sizeof word);
        std::memcpy(&magnitude, &size, sizeof magnitude);
        int32_t exponent = magnitude >> 23;
        exponent = exponent > start ? exponent : start;
        // the gap between neighbours, and its inverse
        const int32_t gap_bits = (exponent - digits) << 23, inverse_bits = (254 << 23) - gap_bits;
        float gap, inverse;
        std::memcpy(&gap, &gap_bits, sizeof gap);
        std::memcpy(&inverse, &inverse_bits, sizeof inverse);
        const int32_t few = int32_t(size * inverse), sign = word >> 31;
        const int32_t place = few + ((exponent - start) << digits);
        const float inner = size - float(few) * gap, outer = float(few + 1) * gap - size;
        const float up = (sign ? outer : inner) / (inner + outer);
        int32_t level = mid + (place ^ sign) + (uniform(numbers[j]) < up);  // ~place is -place - 1
        level = level < 2 * mid ? level : 2 * mid;
        levels[j] = uint8_t(level > 0 ? level : 0);
      }
    }
    pack_row(bits, levels, bytes, packed);
  }
}

// values[code] * scale.
void restore_values(const uint8_t* packed, i64 n, i64 p, i64 block, i64 bits, const float* values,
                    const float* scale, float* out) {
  const i64 blocks = (p + block - 1) / block, bytes = (p * bits + 7) / 8;
  Row row(p);
  uint8_t* levels = row.levels.data();
  for (i64 i = 0; i < n; i++, packed += bytes, scale += blocks, out += p) {
    unpack_row(bits, packed, bytes, levels);
    for (i64 b = 0; b < blocks; b++) {
      const i64 end = (b + 1) * block < p ? (b + 1) * block : p;
      const float unit = scale[b];
      for (i64 j = b * block; j < end; j++) out[j] = values[levels[j]] * unit;
    }
  }
}

}  // extern "C"

// Rounding to even steps at random, packing and restoring, a row at a time: each is one pass over
// memory. The arithmetic is that of rounding.py, operation for operation, so that codes agree to the
// bit.

#include <cmath>
#include <limits>

#include "rows.h"

namespace {

constexpr int LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));

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

}  // extern "C"

// What rounding works with, a row at a time: its random numbers, those of counter.py, and numbers
// of few bits packed into bytes. Loops are written so that a compiler makes vectors of them.

#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

using i64 = int64_t;

namespace {

// Calls of Philox 4x32 with ten rounds.
struct Philox {
  uint32_t low[10], high[10];

  explicit Philox(uint64_t seed) {
    for (int i = 0; i < 10; i++) {
      low[i] = uint32_t(seed) + i * 0x9E3779B9u;
      high[i] = uint32_t(seed >> 32) + i * 0xBB67AE85u;
    }
  }

  // The four words of each of some calls.
  void draw(uint32_t row, uint32_t stream, i64 first, i64 end, uint32_t* out) const {
    for (i64 call = first; call < end; call++) {
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

#ifdef __AVX512F__
  // Eight calls at once, each a lane of 64 bits of which the lower half counts: a compiler moves
  // halves about, which takes twice as long.
  i64 draw_eights(uint32_t row, uint32_t stream, i64 end, uint32_t* out) const {
    const __m512i left_by = _mm512_set1_epi64(0xD2511F53u), half = _mm512_set1_epi64(0xFFFFFFFFu);
    const __m512i right_by = _mm512_set1_epi64(0xCD9E8D57u);
    // in this order even lanes end in the first vector of words, odd ones in the second
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    i64 call = 0;
    for (; call + 8 <= end; call += 8) {
      __m512i a = _mm512_add_epi64(order, _mm512_set1_epi64(call)), b = _mm512_set1_epi64(row);
      __m512i c = _mm512_set1_epi64(stream), d = _mm512_setzero_si512();
#pragma GCC unroll 10
      for (int i = 0; i < 10; i++) {
        const __m512i left = _mm512_mul_epu32(a, left_by), right = _mm512_mul_epu32(c, right_by);
        const __m512i key = _mm512_set1_epi64(low[i]), other = _mm512_set1_epi64(high[i]);
        a = _mm512_ternarylogic_epi64(_mm512_srli_epi64(right, 32), b, key, 0x96);  // x ^ y ^ z
        c = _mm512_ternarylogic_epi64(_mm512_srli_epi64(left, 32), d, other, 0x96);
        b = right, d = left;
      }
      // (half & lower) | upper
      a = _mm512_ternarylogic_epi64(half, a, _mm512_slli_epi64(b, 32), 0xEA);
      c = _mm512_ternarylogic_epi64(half, c, _mm512_slli_epi64(d, 32), 0xEA);
      _mm512_storeu_si512(out + 4 * call, _mm512_unpacklo_epi64(a, c));
      _mm512_storeu_si512(out + 4 * call + 16, _mm512_unpackhi_epi64(a, c));
    }
    return call;
  }
#else
  i64 draw_eights(uint32_t, uint32_t, i64, uint32_t*) const { return 0; }
#endif
};

// The 16-bit numbers of a row, eight for each call.
inline void draw(uint64_t seed, uint32_t row, uint32_t stream, i64 calls, uint32_t* out) {
  const Philox philox(seed);
  const i64 done = philox.draw_eights(row, stream, calls, out);
  philox.draw(row, stream, done, calls, out);
}

inline float uniform(uint16_t number) { return (float(number) + 0.5f) * 0x1p-16f; }

// Numbers below 2^bits into bytes, the first in the lowest bits; `levels` is padded by zeros.
template <typename Word, int BITS>
inline void pack(const uint8_t* levels, i64 bytes, uint8_t* packed) {
  for (i64 i = 0; i < bytes; i++) {
    Word word, byte = 0;
    std::memcpy(&word, levels + i * sizeof word, sizeof word);
    for (unsigned k = 0; k < sizeof word; k++) byte |= word >> ((8 - BITS) * k);
    packed[i] = uint8_t(byte);
  }
}

template <typename Word, int BITS>
inline void unpack(const uint8_t* packed, i64 bytes, uint8_t* levels) {
  const Word mask = Word(~Word(0)) / 255 * ((1 << BITS) - 1);
  for (i64 i = 0; i < bytes; i++) {
    Word word = 0, byte = packed[i];
    for (unsigned k = 0; k < sizeof word; k++) word |= byte << ((8 - BITS) * k);
    word &= mask;
    std::memcpy(levels + i * sizeof word, &word, sizeof word);
  }
}

inline void pack_row(i64 bits, const uint8_t* levels, i64 bytes, uint8_t* packed) {
  if (bits == 1) pack<uint64_t, 1>(levels, bytes, packed);
  if (bits == 2) pack<uint32_t, 2>(levels, bytes, packed);
  if (bits == 4) pack<uint16_t, 4>(levels, bytes, packed);
  if (bits == 8) std::memcpy(packed, levels, bytes);
}

inline void unpack_row(i64 bits, const uint8_t* packed, i64 bytes, uint8_t* levels) {
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

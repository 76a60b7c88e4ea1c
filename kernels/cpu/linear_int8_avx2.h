// Several rows of x on AVX2, whose products of bytes (vpmaddubsw) end in 16 bits: what fits there decides how weights are laid out for them.
//   Q8_0   a pair may reach 2·128·127: codes and activations become 16-bit numbers and vpmaddwd sums pairs in 32 bits, two instructions for 16 products
//   Q4_K   eight pairs of codes up to 15 stay below 2^15: two instructions for 32 products, one more for each 32 inputs
//   Q6_K   four pairs of codes up to 63, since what they sum to, less 32 times the activations, is below 2^15
// A tile is 4 rows × 16 outputs: eight sums, two vectors of weights, one of activations. Its float sums rest in memory, which costs little once for 16 or 32 inputs.
// The weights of a piece of one panel and the activations of a tile stay in the first cache, those of a block of rows, packed close together, in the second.
// The integers are exact and the floats come in the order of linear_int8.isa.cpp: the same bits.
// Included by linear_int8.isa.cpp only.
#pragma once

namespace bg::cpu::BG_ISA {
namespace {

constexpr int kManyTile = 4;
constexpr int64_t kManyRows = 128;     // of a block; a multiple of 16
constexpr int64_t kPieceBytes = 1024;  // codes of one row in a piece: 512 inputs of Q8_0 (16 bits each), 1024 of the others

// A piece of sixteen packed rows m: codes of a tile lie together, 64 bytes of each of its rows, then the next 64; the rest is one line of 64 bytes for sixteen numbers.
struct Piece {
  char* codes;     // 4 tiles of 4 rows, kManyTile·kPieceBytes from one to the next
  float* d;        // d_x of row m: [16·b + m], b = 32 inputs (Q8) or 256 (Q8K)
  int32_t* pairs;  // Q8K: [16·b + m]: Σ codes of 32 inputs and of the next 32, two 16-bit numbers in one
  int32_t* sums;   // Q8K: [16·b + m]: −32·Σ codes of 16, in 16 bits of the even and of the odd pairs
};
constexpr size_t kPieceLines = 16 * kPieceBytes / 64 + kPieceBytes / 256 * (1 + 4 + 16), kPieceRows = 64 * kPieceLines;

BG_INLINE int64_t piece_inputs(Packing p) { return p == kPackQ8 ? kPieceBytes / 2 : kPieceBytes; }
BG_INLINE int64_t pieces_of(Packing p, int64_t D) { return (D + piece_inputs(p) - 1) / piece_inputs(p); }
BG_INLINE Piece piece_at(const void* rows, int64_t index) {
  char* at = static_cast<char*>(const_cast<void*>(rows)) + size_t(index) * kPieceRows;
  auto* d = reinterpret_cast<float*>(at + 16 * kPieceBytes);
  auto* pairs = reinterpret_cast<int32_t*>(d + kPieceBytes / 16);
  return {at, d, pairs, pairs + kPieceBytes / 4};
}
// Of 32 codes, for each 16 (to, to + stride): −32·Σ in 16 bits of the even and of the odd pairs.
BG_INLINE void sums_of_32(int32_t* to, int64_t stride, const int8_t* codes) {
  __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes_at(codes));  // of pairs
  s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_mullo_epi16(_mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0xb1)), _mm256_set1_epi16(-32));
  to[0] = _mm256_extract_epi32(s, 0);
  to[stride] = _mm256_extract_epi32(s, 4);
}
BG_INLINE Packing packing_for(Type weights) { return weights == Type::q8_0 ? kPackQ8 : kPackQ8K; }

}  // namespace

size_t packed_row_bytes(Packing p, int64_t D) { return size_t(pieces_of(p, D)) * kPieceRows / 16; }

void pack_q8(void* to, const Unpacked& x, int64_t D) {
  const int64_t m0 = x.first % 16, first = x.first / 16 * pieces_of(kPackQ8, D);
  for (int64_t j = 0; j < D; j += 32 * kBlocks) {
    const Piece piece = piece_at(to, first + j / (32 * kBlocks));
    const int64_t blocks = least(kBlocks, (D - j) / 32);
    for (int64_t m = m0; m < m0 + x.count; ++m) {
      alignas(32) int8_t codes[32 * kBlocks];
      alignas(32) float d[kBlocks], sum[kBlocks];
      quantise_32(codes, d, sum, x.row(m - m0) + j, blocks);
      char* at = piece.codes + m / 4 * (kManyTile * kPieceBytes) + 64 * (m % 4);
      for (int64_t b = 0; b < blocks; ++b) {
        piece.d[16 * b + m] = d[b];
        BG_UNROLL for (int half = 0; half < 2; ++half)
          _mm256_store_si256(reinterpret_cast<__m256i*>(at + 256 * b) + half, _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + 32 * b) + half)));
      }
    }
  }
}

void pack_q8k(void* to, const Unpacked& x, int64_t D) {
  const int64_t m0 = x.first % 16, first = x.first / 16 * pieces_of(kPackQ8K, D);
  for (int64_t b = 0; 256 * b < D; ++b) {
    const Piece piece = piece_at(to, first + b / 4);
    const int64_t g = b % 4;
    for (int64_t m = m0; m < m0 + x.count; ++m) {
      alignas(32) int8_t codes[256];
      alignas(32) float sum[16];
      piece.d[16 * g + m] = quantise_256(codes, sum, x.row(m - m0) + 256 * b);
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t k = 0; k < 2; ++k) sums_of_32(piece.sums + 16 * (16 * g + 4 * i + 2 * k) + m, 16, codes + 64 * i + 32 * k);
        piece.pairs[16 * (4 * g + i) + m] = pair_of(sum[4 * i] + sum[4 * i + 1], sum[4 * i + 2] + sum[4 * i + 3]);
        memcpy(piece.codes + m / 4 * (kManyTile * kPieceBytes) + 256 * (4 * g + i) + 64 * (m % 4), codes + 64 * i, 64);
      }
    }
  }
}

namespace {

// Of 16 blocks of 16 codes, as OneRow has them.
BG_INLINE void sums_of_one(int32_t* to, const int8_t* codes, const float*) {
  for (int64_t i = 0; i < 8; ++i) sums_of_32(to + 2 * i, 1, codes + 32 * i);
}

// Memory that the compiler must not keep in registers: it would spill the sums instead.
BG_INLINE float* in_memory(float* p) {
  asm volatile("" : "+r"(p) : : "memory");
  return p;
}

// Codes of a Q8_0 chunk as pairs of 16 bits: per 32 inputs 16 lines, lane r of line i is inputs 2i, 2i + 1 of output r; then, at `scales`, 16 floats d per 32 inputs.
void widen_q8_0(char* to, float* scales, const char* group, int64_t len) {
  const __m256i low = _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
  const __m256i high = _mm256_broadcastsi128_si256(_mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15));
  const __m256i bias = _mm256_set1_epi8(char(0x80));
  for (int64_t j = 0; j < len; j += 32, to += 1024, scales += 16) {
    const char *lines = group + 512 * (j / 32 % 2), *d = group + 1024 + 32 * (j / 32 % 2);
    for (int i = 0; i < 8; ++i) {
      ask<Near>(lines + 64 * i);
      BG_UNROLL for (int half = 0; half < 2; ++half) {
        const __m256i q = _mm256_xor_si256(bytes_at(lines + 64 * i + 32 * half), bias);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + 128 * i + 32 * half), _mm256_srai_epi16(_mm256_shuffle_epi8(q, low), 8));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + 128 * i + 64 + 32 * half), _mm256_srai_epi16(_mm256_shuffle_epi8(q, high), 8));
      }
    }
    store(scales, load(reinterpret_cast<const F16*>(d)));
    if (j / 32 % 2 == 1) group += 1088;
  }
}

// sums (M rows) += what `blocks` times 32 inputs give. x: a piece, from row m0 on; w, scales: widened.
template <int M>
void many_q8_0(float* sums, const Piece& x, const char* codes, int64_t m0, const char* w, const float* scales, int64_t blocks, bool resume) {
  for (int64_t b = 0; b < blocks; ++b, codes += 256, w += 1024, scales += 16) {
    I s[M];
    BG_UNROLL for (int i = 0; i < 16; ++i) {
      const I q = load_i(w + 64 * i);
      BG_UNROLL for (int m = 0; m < M; ++m) {
        const __m256i a = four_at(codes + 64 * m + 4 * i);
        s[m] = i == 0 ? I{_mm256_madd_epi16(q.a, a), _mm256_madd_epi16(q.b, a)} : dot2(s[m], q, {a, a});
      }
    }
    sums = in_memory(sums);
    const V d = load(scales);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      float* to = sums + m * kSumsStride;
      store(to, madd(to_float(s[m]), mul(d, splat(x.d[16 * b + m0 + m])), resume || b > 0 ? load(to) : splat(0.0f)));
    }
  }
}

// The same of `groups` times 256 inputs of Q4_K or Q6_K; w: spread.
template <int M, bool q4>
void many_k(float* sums, const Piece& x, const char* codes, int64_t m0, const char* w, int64_t groups, bool resume) {
  constexpr int kInputs = q4 ? 32 : 16, kScales = 256 / kInputs;
  for (int64_t g = 0; g < groups; ++g, codes += 1024) {
    const char *lines = w + 4096 * g, *mins = w + kSpreadCodes + kSpreadScales + 320 * g;
    const auto* scales = reinterpret_cast<const float*>(w + kSpreadCodes) + 16 * kScales * g;
    alignas(64) float room[M * 16];
    float* part = room;
    if constexpr (q4) {
      I s[M];
      BG_UNROLL for (int m = 0; m < M; ++m) s[m] = zero_i();
      BG_UNROLL for (int i = 0; i < 4; ++i) {
        const I pair = load_i(mins + 64 * i);
        BG_UNROLL for (int m = 0; m < M; ++m) s[m] = dot2(s[m], pair, splat_i(x.pairs[16 * (4 * g + i) + m0 + m]));
      }
      const V dmin = load(reinterpret_cast<const float*>(mins + 256));
      BG_UNROLL for (int m = 0; m < M; ++m) store(part + 16 * m, mul(dmin, to_float(s[m])));
    } else {
      BG_UNROLL for (int m = 0; m < M; ++m) store(part + 16 * m, splat(0.0f));
    }
    for (int c = 0; c < 4; ++c) {
      BG_UNROLL for (int k = 0; k < 64 / kInputs; ++k, lines += 16 * kInputs, scales += 16) {
        const char* from = codes + 256 * c + kInputs * k;
        I s[M];
        BG_UNROLL for (int m = 0; m < M; ++m) s[m] = q4 ? zero_i() : splat_i(x.sums[16 * (kScales * g + 64 / kInputs * c + k) + m0 + m]);
        BG_UNROLL for (int i = 0; i < kInputs / 4; ++i) {
          const I q = load_i(lines + 64 * i);
          BG_UNROLL for (int m = 0; m < M; ++m) {
            const __m256i a = four_at(from + 64 * m + 4 * i);
            const I pairs = {_mm256_maddubs_epi16(q.a, a), _mm256_maddubs_epi16(q.b, a)};
            s[m] = q4 && i == 0 ? pairs : I{plus_16(s[m].a, pairs.a), plus_16(s[m].b, pairs.b)};
          }
        }
        part = in_memory(part);
        const V scale = load(scales);
        BG_UNROLL for (int m = 0; m < M; ++m) store(part + 16 * m, madd(to_float(dot4_whole(s[m])), scale, load(part + 16 * m)));
      }
    }
    BG_UNROLL for (int m = 0; m < M; ++m) {
      float* to = sums + m * kSumsStride;
      store(to, madd(load(part + 16 * m), splat(x.d[16 * g + m0 + m]), resume || g > 0 ? load(to) : splat(0.0f)));
    }
  }
}

template <int M>
void many(Type type, float* sums, const Piece& x, const char* codes, int64_t m0, char* w, int64_t len, bool resume) {
  if (type == Type::q8_0)
    many_q8_0<M>(sums, x, codes, m0, w, scales_of(w), len / 32, resume);
  else if (type == Type::q4_k)
    many_k<M, true>(sums, x, codes, m0, w, len / 256, resume);
  else
    many_k<M, false>(sums, x, codes, m0, w, len / 256, resume);
}

static_assert(kSpread + size_t(kInt8Inputs) / 256 * 3392 <= kLinearScratch);

void group_rows(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  const Packing p = packing_for(w.type);
  const int64_t pieces = pieces_of(p, x.D), inputs = piece_inputs(p);
  const auto pass = [&](int64_t t0, int64_t rows, int64_t i, int64_t n) {
    const int64_t j0 = i * inputs, len = least(inputs, x.D - j0);
    const Chunk chunk = chunk_of(w, first + n, 1, j0, len, scratch + kSpread);
    if (w.type == Type::q8_0)
      widen_q8_0(scratch, scales_of(scratch), chunk.at, len);
    else
      (w.type == Type::q4_k ? spread_q4_k : spread_q6_k)(scratch, chunk.at, len);
    for (int64_t t = t0; t < t0 + rows; t += kManyTile) {
      const Piece piece = piece_at(x.data, t / 16 * pieces + i);
      const char* codes = piece.codes + t % 16 * kPieceBytes;
      float* y = sums + t * kSumsStride + 16 * n;
      for (int m = 0; m < kManyTile; ++m) __builtin_prefetch(y + (kManyTile + m) * kSumsStride);
      switch (least(kManyTile, t0 + rows - t)) {
        case 1: many<1>(w.type, y, piece, codes, t % 16, scratch, len, j0 > 0); break;
        case 2: many<2>(w.type, y, piece, codes, t % 16, scratch, len, j0 > 0); break;
        case 3: many<3>(w.type, y, piece, codes, t % 16, scratch, len, j0 > 0); break;
        default: many<kManyTile>(w.type, y, piece, codes, t % 16, scratch, len, j0 > 0);
      }
    }
  };
  for (int64_t t0 = 0; t0 < x.count; t0 += kManyRows) {
    const int64_t rows = least(kManyRows, x.count - t0);
    if (rows <= kFew) {  // a panel from end to end
      for (int64_t n = 0; n < count; ++n)
        for (int64_t i = 0; i < pieces; ++i) pass(t0, rows, i, n);
    } else {
      for (int64_t i = 0; i < pieces; ++i)
        for (int64_t n = 0; n < count; ++n) pass(t0, rows, i, n);
    }
  }
}

}  // namespace
}  // namespace bg::cpu::BG_ISA

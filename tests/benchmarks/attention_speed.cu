// Checks flash_attend against sums in fp64 and for equal bits, then times it beside attend().
// usage: attention_speed [check|time|flash]; flash: checks, then times without attend(). Exit 1: a check
// failed.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "device_array.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/flash_attention.h"

namespace {

using namespace mezzo;
using namespace mezzo::cuda;
using bf16 = __nv_bfloat16;

// ---- a case
// -----------------------------------------------------------------------------------------------------

enum class Turn { none, half_split, interleaved };
enum class When { fused, before, keys_before };  // who rotates: flash_attend, rotate(), or each its part

constexpr std::int64_t places = 4096;

struct Case {
  int head_dim = 64;
  int heads = 2;
  int kv_heads = 2;
  Turn turn = Turn::none;
  int dims = 0;  // rotated
  int copies = 1;
  bool shared_keys = false;  // k and v have copy stride 0
};
struct Sequence {
  std::uint64_t name = 0;  // its values are a function of this, the copy, the token and the column
  int length = 0;
};

/// Column `column` of row `token` of [q | k | v].
float value(const Case& c, const Sequence& s, int copy, int token, int column) {
  const bool shared = c.shared_keys && column >= c.heads * c.head_dim;
  const std::uint64_t x = mix(mix(mix(s.name * 131 + (shared ? 0 : copy)) + token) + column);
  const float uniform = static_cast<float>(x >> 40) * 0x1p-23f - 1.0f;
  return __bfloat162float(
      __float2bfloat16_rn(column < c.heads * c.head_dim ? 4.0f * uniform : 1.5f * uniform));
}
int position(const Sequence& s, int token) { return static_cast<int>(s.name % 7) + token; }

/// [2, places, dims / 2] cosines, then sines.
const std::vector<float>& tables(int dims) {
  static std::map<int, std::vector<float>> made;
  std::vector<float>& t = made[dims];
  if (!t.empty()) return t;
  const int half = dims / 2;
  t.resize(2 * places * half);
  for (int p = 0; p < places; ++p) {
    for (int j = 0; j < half; ++j) {
      const double angle = p * std::pow(10000.0, -2.0 * j / dims);
      t[p * half + j] = static_cast<float>(std::cos(angle));
      t[(places + p) * half + j] = static_cast<float>(std::sin(angle));
    }
  }
  return t;
}

/// The queries asked for: all of a sequence's tokens, or every one that `asked` picks.
bool asked(const Sequence& s, int token) {
  return token == s.length - 1 || mix(s.name * 977 + token) % 5 == 0;
}

/// Out [copies, queries, heads * head_dim] of the sequences packed in this order.
std::vector<bf16> attend_on_device(const Case& c, const std::vector<Sequence>& sequences, bool subset,
                                   When when = When::fused) {
  std::vector<std::int32_t> offsets = {0}, rows, positions;
  for (const Sequence& s : sequences) {
    for (int t = 0; t < s.length; ++t) {
      if (!subset || asked(s, t)) rows.push_back(offsets.back() + t);
      positions.push_back(position(s, t));
    }
    offsets.push_back(offsets.back() + s.length);
  }
  const int tokens = offsets.back();
  const int queries = static_cast<int>(rows.size());
  const int width = c.heads * c.head_dim;
  const int key_width = c.kv_heads * c.head_dim;
  const int row = width + 2 * key_width + 8;  // of [q | k | v | unused]
  std::vector<bf16> qkv(static_cast<std::size_t>(c.copies) * tokens * row, __float2bfloat16_rn(NAN));
  std::vector<bf16> q(static_cast<std::size_t>(c.copies) * queries * width);
  for (int copy = 0; copy < c.copies; ++copy) {
    int query = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      for (int t = 0; t < sequences[i].length; ++t) {
        const std::size_t at = (static_cast<std::size_t>(copy) * tokens + offsets[i] + t) * row;
        for (int j = 0; j < width + 2 * key_width; ++j) {
          if (c.shared_keys && copy > 0 && j >= width) break;
          qkv[at + j] = __float2bfloat16_rn(value(c, sequences[i], copy, t, j));
        }
        if (subset && asked(sequences[i], t)) {
          std::copy_n(&qkv[at], width, &q[(static_cast<std::size_t>(copy) * queries + query++) * width]);
        }
      }
    }
  }
  const Array<bf16> qkv_at(qkv), q_at(q);
  const Array<bf16> out(
      std::vector<bf16>(static_cast<std::size_t>(c.copies) * queries * width, __float2bfloat16_rn(NAN)));
  const Array<std::int32_t> offsets_at(offsets), rows_at(rows), positions_at(positions);
  const Array<float> tables_at(tables(c.dims));
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});

  Attention a = {};
  const std::int64_t copy_stride = std::int64_t{tokens} * row;
  a.q = subset ? Matrices{q_at.data, DType::bf16, width, std::int64_t{queries} * width}
               : Matrices{qkv_at.data, DType::bf16, row, copy_stride};
  a.k = Matrices{qkv_at.data + width, DType::bf16, row, c.shared_keys ? 0 : copy_stride};
  a.v = Matrices{qkv_at.data + width + key_width, DType::bf16, row, c.shared_keys ? 0 : copy_stride};
  a.out = Matrices{out.data, DType::bf16, width, std::int64_t{queries} * width};
  a.offsets = offsets_at.data;
  a.query_rows = subset ? rows_at.data : nullptr;
  a.queries = queries;
  a.sequences = static_cast<std::int64_t>(sequences.size());
  for (const Sequence& s : sequences) a.longest = std::max<std::int64_t>(a.longest, s.length);
  a.heads = c.heads;
  a.kv_heads = c.kv_heads;
  a.head_dim = c.head_dim;
  a.scale = static_cast<float>(1.0 / std::sqrt(c.head_dim));
  Rotary rotary;
  if (c.turn != Turn::none) {
    Rotation& r = rotary.rotation;
    r.half_split = c.turn == Turn::half_split;
    r.dims = c.dims;
    r.head_dim = c.head_dim;
    r.places = places;
    r.cosines = tables_at.data;
    r.sines = tables_at.data + places * (c.dims / 2);
    r.table_stride = c.dims / 2;
    rotary.fault = fault.data;
    if (when != When::fused) {
      r.heads = c.kv_heads;
      must(rotate(r, positions_at.data, tokens, nullptr, tokens, c.shared_keys ? 1 : c.copies, a.k,
                  fault.data, nullptr),
           "rotate k");
      rotary.keys = false;
    }
    if (when == When::before) {
      r.heads = c.heads;
      must(rotate(r, positions_at.data, tokens, a.query_rows, queries, c.copies, a.q, fault.data, nullptr),
           "rotate q");
    } else {
      rotary.positions = positions_at.data;
    }
  }
  must(flash_attend(a, rotary, c.copies, nullptr), "flash_attend");
  must(cudaDeviceSynchronize(), "flash_attend");
  if (fault.read()[0] != 0) {
    std::printf("fault %u\n", fault.read()[0]);
    std::exit(1);
  }
  return out.read();
}

/// Rotates one head of one token as rotate() does.
void rotate_head(const Case& c, const std::vector<float>& table, int at, std::vector<float>& x) {
  const int half = c.dims / 2;
  for (int j = 0; j < half; ++j) {
    float& a = x[c.turn == Turn::half_split ? j : 2 * j];
    float& b = x[c.turn == Turn::half_split ? j + half : 2 * j + 1];
    const float cosine = table[at * half + j];
    const float sine = table[(places + at) * half + j];
    const float first = std::fma(a, cosine, -(b * sine));
    const float second = std::fma(a, sine, b * cosine);
    a = __bfloat162float(__float2bfloat16_rn(first));
    b = __bfloat162float(__float2bfloat16_rn(second));
  }
}

/// The largest error of `out` against sums in fp64, relative to the largest element of a query's head.
double error_of(const Case& c, const std::vector<Sequence>& sequences, bool subset,
                const std::vector<bf16>& out) {
  const std::vector<float>& table = tables(c.dims);
  const int group = c.heads / c.kv_heads;
  double worst = 0.0;
  std::size_t queries = 0;
  for (const Sequence& s : sequences) {
    for (int t = 0; t < s.length; ++t) queries += !subset || asked(s, t);
  }
  std::size_t first_query = 0;
  for (const Sequence& s : sequences) {
    const auto load = [&](int copy, int token, int column, bool turned) {
      std::vector<float> x(c.head_dim);
      for (int d = 0; d < c.head_dim; ++d) x[d] = value(c, s, copy, token, column + d);
      if (turned && c.turn != Turn::none) rotate_head(c, table, position(s, token), x);
      return x;
    };
    std::size_t count = 0;
    for (int copy = 0; copy < c.copies; ++copy) {
      for (int h = 0; h < c.heads; ++h) {
        std::vector<std::vector<float>> keys, values;
        for (int t = 0; t < s.length; ++t) {
          keys.push_back(load(copy, t, (c.heads + h / group) * c.head_dim, true));
          values.push_back(load(copy, t, (c.heads + c.kv_heads + h / group) * c.head_dim, false));
        }
        count = 0;
        for (int t = 0; t < s.length; ++t) {
          if (subset && !asked(s, t)) continue;
          const std::vector<float> query = load(copy, t, h * c.head_dim, true);
          std::vector<double> score(t + 1), sum(c.head_dim);
          for (int u = 0; u <= t; ++u) {
            for (int d = 0; d < c.head_dim; ++d) score[u] += double{query[d]} * keys[u][d];
            score[u] /= std::sqrt(c.head_dim);
          }
          const double most = *std::max_element(score.begin(), score.end());
          double total = 0.0, largest = 0.0;
          for (int u = 0; u <= t; ++u) {
            const double weight = std::exp(score[u] - most);
            total += weight;
            for (int d = 0; d < c.head_dim; ++d) sum[d] += weight * values[u][d];
          }
          for (double& x : sum) largest = std::max(largest, std::abs(x /= total));
          const bf16* got = &out[((copy * queries + first_query + count) * c.heads + h) * c.head_dim];
          for (int d = 0; d < c.head_dim; ++d) {
            const double error = std::abs(__bfloat162float(got[d]) - sum[d]) / largest;
            if (!(error <= worst)) worst = error;  // a NaN stays
            if (std::isnan(error)) return error;
          }
          ++count;
        }
      }
    }
    first_query += count;
  }
  return worst;
}

// ---- checks
// -----------------------------------------------------------------------------------------------------

int failures = 0;

void expect(bool right, const Case& c, const char* what) {
  if (right) return;
  ++failures;
  std::printf("FAILED: %s (head_dim %d, heads %d/%d, turn %d of %d dims, copies %d%s)\n", what, c.head_dim,
              c.heads, c.kv_heads, static_cast<int>(c.turn), c.dims, c.copies,
              c.shared_keys ? ", shared keys" : "");
}
bool same(const bf16* x, const bf16* y, std::size_t n) { return std::memcmp(x, y, n * sizeof(bf16)) == 0; }
bool same(const std::vector<bf16>& x, const std::vector<bf16>& y) {
  return x.size() == y.size() && same(x.data(), y.data(), x.size());
}

/// All checks of one case; returns its largest error.
double check(const Case& c) {
  const std::vector<Sequence> sequences = {{1, 31},  {2, 1},   {3, 257}, {4, 33}, {5, 64},
                                           {6, 128}, {7, 129}, {8, 2},   {9, 63}, {10, 200}};
  const std::vector<bf16> all = attend_on_device(c, sequences, false);
  const std::vector<bf16> some = attend_on_device(c, sequences, true);
  const double error = std::max(error_of(c, sequences, false, all), error_of(c, sequences, true, some));
  expect(error < 0.012, c, "error against fp64");
  expect(same(all, attend_on_device(c, sequences, false)), c, "the same bits twice");

  const std::size_t width = static_cast<std::size_t>(c.heads) * c.head_dim;
  const std::size_t tokens = all.size() / width / c.copies;
  const std::size_t queries = some.size() / width / c.copies;
  for (int copy = 0; copy < c.copies; ++copy) {  // a query among others and among all
    std::size_t token = copy * tokens, query = copy * queries;
    bool right = true;
    for (const Sequence& s : sequences) {
      for (int t = 0; t < s.length; ++t, ++token) {
        if (asked(s, t)) right = right && same(&all[token * width], &some[query++ * width], width);
      }
    }
    expect(right, c, "bits of a query among all and among few");
  }
  std::size_t first = 0;
  for (const Sequence& s : sequences) {  // a sequence in company and alone, all its queries and some
    const std::vector<bf16> alone = attend_on_device(c, {s}, false);
    bool right = true;
    for (int copy = 0; copy < c.copies; ++copy) {
      right = right &&
              same(&all[(copy * tokens + first) * width], &alone[copy * s.length * width], s.length * width);
    }
    expect(right, c, "bits of a sequence in company and alone");
    first += s.length;
  }
  if (c.copies > 1) {
    Case one = c;
    one.copies = 1;
    const std::vector<bf16> alone = attend_on_device(one, sequences, false);
    expect(same(all.data(), alone.data(), alone.size()), c, "bits of the first copy alone");
  }
  if (c.turn != Turn::none) {
    expect(same(all, attend_on_device(c, sequences, false, When::before)), c, "bits after rotate()");
    expect(same(all, attend_on_device(c, sequences, false, When::keys_before)), c,
           "bits after rotate() of k");
    expect(same(some, attend_on_device(c, sequences, true, When::before)), c,
           "bits after rotate(), few queries");
  }
  return error;
}

/// rotate() against rotate_head, every bit: whole words, and rows that do not begin on one.
void check_rotate(const Case& c, int shift) {
  const Sequence s = {5, 37};
  const std::vector<float>& table = tables(c.dims);
  const int width = c.heads * c.head_dim;
  const int row = width + 8 + shift;
  std::vector<bf16> x(s.length * row + shift), wanted;
  for (int t = 0; t < s.length; ++t) {
    for (int j = 0; j < width; ++j) x[shift + t * row + j] = __float2bfloat16_rn(value(c, s, 0, t, j));
  }
  wanted = x;
  std::vector<std::int32_t> rows, positions;
  for (int t = 0; t < s.length; ++t) {
    rows.push_back(s.length - 1 - t);
    positions.push_back(position(s, t));
  }
  for (int t = 0; t < s.length; ++t) {
    for (int h = 0; h < c.heads; ++h) {
      bf16* const at = &wanted[shift + t * row + h * c.head_dim];
      std::vector<float> head(c.head_dim);
      for (int d = 0; d < c.head_dim; ++d) head[d] = __bfloat162float(at[d]);
      rotate_head(c, table, positions[rows[t]], head);
      for (int d = 0; d < c.head_dim; ++d) at[d] = __float2bfloat16_rn(head[d]);
    }
  }
  const Array<bf16> x_at(x);
  const Array<std::int32_t> rows_at(rows), positions_at(positions);
  const Array<float> tables_at(table);
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});
  const Rotation r = {c.turn == Turn::half_split,
                      c.dims,
                      c.head_dim,
                      c.heads,
                      places,
                      tables_at.data,
                      tables_at.data + places * (c.dims / 2),
                      c.dims / 2};
  const Matrices view = {x_at.data + shift, DType::bf16, row, 0};
  must(rotate(r, positions_at.data, s.length, rows_at.data, s.length, 1, view, fault.data, nullptr),
       "rotate");
  must(cudaDeviceSynchronize(), "rotate");
  expect(same(x_at.read(), wanted) && fault.read()[0] == 0, c, shift == 0 ? "rotate()" : "rotate(), shifted");
}

void check_refusals() {
  Attention a = {};
  alignas(16) static char memory[64];
  a.q = a.k = a.v = a.out = Matrices{memory, DType::bf16, 128, 0};
  a.queries = a.sequences = a.longest = 1;
  a.heads = a.kv_heads = 2;
  a.head_dim = 64;
  const Case c;
  constexpr std::size_t any_room = 227 << 10;
  expect(flash_attend_fits(a, any_room), c, "fits");
  expect(!flash_attend_fits(a, 16 << 10), c, "refuses a card with little shared memory");
  Attention b = a;
  b.k.data = memory + 8;
  expect(!flash_attend_fits(b, any_room), c, "refuses a pointer");
  expect(flash_attend(b, {}, 1, nullptr) == cudaErrorInvalidValue, c, "answers with invalid value");
  b = a;
  b.v.row_stride = 132;
  expect(!flash_attend_fits(b, any_room), c, "refuses a stride");
  b = a;
  b.q.dtype = DType::f32;
  expect(!flash_attend_fits(b, any_room), c, "refuses fp32");
  b = a;
  b.head_dim = 60;
  expect(!flash_attend_fits(b, any_room), c, "refuses a head size");
  Rotation r;
  r.dims = 20;
  expect(!flash_rotary_fits(r), c, "refuses rotary dims");
}

void check_all() {
  check_refusals();
  for (const Turn turn : {Turn::half_split, Turn::interleaved}) {
    for (const int heads : {1, 4, 7, 32}) {
      for (const int shift : {0, 1}) {
        check_rotate({64, heads, heads, turn, 64}, shift);
        check_rotate({80, heads, heads, turn, 48}, shift);
        check_rotate({128, heads, heads, turn, 128}, shift);
      }
    }
  }
  std::printf("largest error against fp64, by head size\n%8s %10s %10s %10s %10s %10s\n", "head_dim", "plain",
              "grouped", "half", "interl.", "copies");
  for (const int head_dim : {64, 80, 96, 128, 256, 8, 40, 72, 120, 136, 192}) {
    const int whole = head_dim / 16 * 16;
    const int part = std::max(head_dim / 32 * 16, 16);
    Case plain = {head_dim, 2, 2};
    Case grouped = {head_dim, 6, 2};
    double errors[5] = {check(plain), check(grouped), 0.0, 0.0, 0.0};
    if (whole > 0) {
      for (const int dims : {whole, part}) {
        errors[2] = std::max(errors[2], check({head_dim, 4, 2, Turn::half_split, dims}));
        errors[3] = std::max(errors[3], check({head_dim, 2, 1, Turn::interleaved, dims}));
      }
    }
    errors[4] = std::max(check({head_dim, 2, 1, Turn::none, 0, 3, false}),
                         whole > 0 ? check({head_dim, 2, 1, Turn::half_split, whole, 3, true})
                                   : check({head_dim, 2, 1, Turn::none, 0, 3, true}));
    std::printf("%8d", head_dim);
    for (const double e : errors) std::printf(" %10.5f", e);
    std::printf("\n");
    std::fflush(stdout);
  }
  // Long sequences: many tiles of keys, few heads.
  Case c = {128, 1, 1, Turn::half_split, 128};
  const std::vector<Sequence> sequences = {{21, 700}, {22, 1111}};
  for (const bool subset : {false, true}) {
    const std::vector<bf16> out = attend_on_device(c, sequences, subset);
    const double error = error_of(c, sequences, subset, out);
    expect(same(out, attend_on_device(c, sequences, subset, When::keys_before)), c,
           "bits of long sequences after rotate() of k");
    expect(same(out, attend_on_device(c, sequences, subset, When::before)), c,
           "bits of long sequences after rotate()");
    std::printf("700 and 1111 tokens%s: %.5f\n", subset ? ", some queries" : "", error);
    expect(error < 0.012, c, "error against fp64 of long sequences");
  }
}

// ---- times
// ------------------------------------------------------------------------------------------------------

__global__ void fill(bf16* x, std::size_t n, std::uint32_t seed) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < n;
       i += std::size_t{gridDim.x} * blockDim.x) {
    std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    h = (h ^ (h >> 15)) * 2246822519u;
    h = (h ^ (h >> 13)) * 3266489917u;
    x[i] = __float2bfloat16_rn(static_cast<float>((h ^ (h >> 16)) >> 8) * (3.4f / 16777216.0f) - 1.7f);
  }
}

/// Median of `repeats` times of `rounds` calls in a row, a call; in microseconds.
template <typename Call>
double time_of(int repeats, int rounds, Call call) {
  const double ms = mezzo::time_of(repeats, [&] {
    for (int round = 0; round < rounds; ++round) call(round);
  });
  return 1000.0 * ms / rounds;
}

std::string time_shape(int head_dim, int heads, int kv_heads, int length, bool old_too) {
  constexpr int tokens = 16384;
  constexpr int sets = 4;  // more than the L2 cache holds
  const std::int64_t width = std::int64_t{heads} * head_dim;
  const std::int64_t key_width = std::int64_t{kv_heads} * head_dim;
  std::vector<Array<bf16>> buffers;  // q, k, v, out of each set
  for (int i = 0; i < 4 * sets; ++i) {
    buffers.emplace_back(static_cast<std::size_t>(tokens * (i % 4 == 1 || i % 4 == 2 ? key_width : width)));
    fill<<<1024, 256>>>(buffers.back().data, buffers.back().size, 77u * i);
  }
  std::vector<std::int32_t> offsets, positions;
  for (int t = 0; t <= tokens; t += length) offsets.push_back(t);
  for (int t = 0; t < tokens; ++t) positions.push_back(t % length);
  const Array<std::int32_t> offsets_at(offsets), positions_at(positions);
  const Array<float> tables_at(tables(head_dim));
  const Array<std::uint32_t> fault(std::vector<std::uint32_t>{0});
  const auto attention = [&](int round) {
    Array<bf16>* const b = &buffers[round % sets * 4];
    Attention a = {};
    a.q = {b[0].data, DType::bf16, width, 0};
    a.k = {b[1].data, DType::bf16, key_width, 0};
    a.v = {b[2].data, DType::bf16, key_width, 0};
    a.out = {b[3].data, DType::bf16, width, 0};
    a.offsets = offsets_at.data;
    a.queries = tokens;
    a.sequences = tokens / length;
    a.longest = length;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.head_dim = head_dim;
    a.scale = static_cast<float>(1.0 / std::sqrt(head_dim));
    return a;
  };
  Rotary rotary;
  rotary.rotation = {true,
                     head_dim,
                     head_dim,
                     heads,
                     places,
                     tables_at.data,
                     tables_at.data + places * (head_dim / 2),
                     head_dim / 2};
  rotary.fault = fault.data;
  Rotary turning = rotary;
  turning.positions = positions_at.data;
  Rotary queries_only = turning;
  queries_only.keys = false;
  const auto turn = [&](const Matrices& x, int x_heads) {
    Rotation r = rotary.rotation;
    r.heads = x_heads;
    must(rotate(r, positions_at.data, tokens, nullptr, tokens, 1, x, fault.data, nullptr), "rotate");
  };
  const int repeats = 15, rounds = 2 * sets;
  const double plain = time_of(
      repeats, rounds, [&](int round) { must(flash_attend(attention(round), {}, 1, nullptr), "flash"); });
  const double fused = time_of(repeats, rounds, [&](int round) {
    must(flash_attend(attention(round), turning, 1, nullptr), "flash");
  });
  const double half_fused = time_of(repeats, rounds, [&](int round) {
    const Attention a = attention(round);
    turn(a.k, kv_heads);
    must(flash_attend(a, queries_only, 1, nullptr), "flash");
  });
  const double apart = time_of(repeats, rounds, [&](int round) {
    const Attention a = attention(round);
    turn(a.q, heads);
    turn(a.k, kv_heads);
    must(flash_attend(a, {}, 1, nullptr), "flash");
  });
  const double turn_k = time_of(repeats, rounds, [&](int round) { turn(attention(round).k, kv_heads); });
  const double old =
      old_too ? time_of(3, 1, [&](int round) { must(attend(attention(round), 1, nullptr), "attend"); }) : NAN;
  const double flops =
      2.0 * head_dim * heads * static_cast<double>(length) * tokens;  // half of 4 d n^2 a sequence
  const double bytes = 2.0 * tokens * (2.0 * width + 2.0 * key_width);
  char line[200];
  std::snprintf(line, sizeof line, "%8d %7s %6d %9.1f %9.1f %7.0f | %9.1f %9.1f%c %9.1f %9.1f | %10.1f\n",
                head_dim, (std::to_string(heads) + "/" + std::to_string(kv_heads)).c_str(), length, plain,
                flops / plain * 1e-6, bytes / plain * 1e-3, fused, half_fused,
                keys_first(attention(0), 1) ? '*' : ' ', apart, turn_k, old);
  return line;
}

void time_all(bool old_too) {
  std::string lines;
  for (const int length : {128, 256, 512, 1024, 2048}) {
    lines += time_shape(128, 32, 32, length, old_too);
    lines += time_shape(64, 12, 12, length, old_too);
  }
  for (const int length : {128, 256, 512, 1024, 2048}) lines += time_shape(128, 32, 8, length, false);
  for (const int head_dim : {80, 96, 256}) {
    for (const int length : {128, 2048}) lines += time_shape(head_dim, 16, 16, length, false);
  }
  cudaDeviceProp device;
  must(cudaGetDeviceProperties(&device, 0), "device");
  std::printf(
      "\n%s, 16384 tokens; microseconds; rotary: fused, rotate(k) and the rest fused (* "
      "where keys_first), rotate(q, k)\n",
      device.name);
  std::printf("%8s %7s %6s %9s %9s %7s | %9s %9s  %9s %9s | %10s\n", "head_dim", "heads", "tokens", "flash",
              "TFLOP/s", "GB/s", "fused", "k before", "before", "rotate(k)", "attend()");
  std::printf("%s", lines.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "time") check_all();
  std::printf("%s\n", failures == 0 ? "checks passed" : "CHECKS FAILED");
  std::fflush(stdout);
  if (what != "check") time_all(what != "flash");
  return failures == 0 ? 0 : 1;
}

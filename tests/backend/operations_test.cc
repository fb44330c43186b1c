// Every operation of the cpu backend against the reference. Tolerances: u = 2^-24 is a rounding's relative
// error. A sum of n terms rounded in fp32 walks away from the double one like a random walk, about u sqrt(n)
// of the size of its partial sums; a test allows several times that, far below what a wrong index, a lost
// term or a lost tail does (those are of the size of a term, 0.1 and more).
#include <gtest/gtest.h>

#include "mezzo/core/noise.h"
#include "operands.h"
#include "product_error.h"

namespace mezzo::test {
namespace {

constexpr double u = 0x1p-24;

class Operations : public ::testing::Test {
 protected:
  std::unique_ptr<Backend> reference = make_backend({.device = DeviceKind::reference});
  std::unique_ptr<Backend> cpu = make_backend({.device = DeviceKind::cpu, .threads = 2});

  void prepare(std::int64_t rows, std::int64_t probes, std::vector<PlannedProduct> products,
               AttentionShape attention = {}, std::int64_t longest = 0) {
    cpu->prepare(
        {.largest =
             {.tokens = rows, .sequences = rows, .loss_rows = rows, .targets = 2 * rows, .longest = longest},
         .probes = probes,
         .products = std::move(products),
         .attention = attention});
  }
  ProbeTable table(std::int64_t probes, NoiseKind noise = NoiseKind::gaussian) {
    ProbeTable result;
    cpu->upload(some_probes(probes), noise, result);
    return result;
  }
};

// Random weights are the noise of mezzo/core/noise.h, rounded once, wherever they are made.
TEST_F(Operations, FillNormal) {
  Operand actual(0, 37, 29, 0), expected(0, 37, 29, 0);
  cpu->fill_normal(actual.view, 7, 0.02f);
  reference->fill_normal(expected.view, 7, 0.02f);
  expect_near(actual, expected, 1, 0.0);
  for (std::int64_t i = 0; i < 37; ++i) {
    for (std::int64_t j = 0; j < 29; ++j) {
      const auto element = static_cast<std::uint64_t>(i * 29 + j);
      EXPECT_EQ(actual.at(0, i, j), noise_at(NoiseKind::gaussian, 7, 0, element) * 0.02f);
    }
  }
  for (Backend* backend : {cpu.get(), reference.get()}) {  // trainables may be in bf16
    std::vector<std::uint16_t> rounded(37 * 29);
    backend->fill_normal(dense(rounded.data(), DType::bf16, 37, 29), 7, 0.02f);
    for (std::int64_t i = 0; i < 37 * 29; ++i)
      EXPECT_EQ(rounded[static_cast<std::size_t>(i)], float_to_bf16(actual.at(0, i / 29, i % 29)));
  }
}

TEST_F(Operations, Embed) {
  const PackedBatch packed_batch = packed({1, 31, 33}, 50);
  DeviceBatch batch;
  cpu->upload(packed_batch, batch);
  for (const bool learned : {false, true}) {
    const Operand words(0, 50, 33, 1), positions(0, 40, 33, 2);
    Operand actual(0, 65, 33, 0), expected(0, 65, 33, 0);
    const View places = learned ? positions.view : View{};
    cpu->embed(table(1), batch, words.view, places, 2, actual.view);
    reference->embed(table(1), batch, words.view, places, 2, expected.view);
    expect_near(actual, expected, 1, 0.0);  // one addition: the same bits
  }
}

// Tokens and target tokens of each probe's own: what a probe gets is what it gets alone.
TEST_F(Operations, ProbesWithTokensOfTheirOwn) {
  constexpr std::int64_t probes = 3, vocabulary = 50, hidden = 33, tokens = 65;
  const PackedBatch all = with_own_tokens(packed({1, 31, 33}, vocabulary), probes, vocabulary);
  EXPECT_EQ(shape_of(all).tokens, tokens);
  const RandomProduct head(hidden, {vocabulary}, {0}, true, 5);
  prepare(tokens, probes, {{&head.product, Epilogue{}, true}});
  const Operand words(0, vocabulary, hidden, 1), places(0, 40, hidden, 2), x(probes, tokens, hidden, 3);
  for (Backend* backend : {cpu.get(), reference.get()}) {
    DeviceBatch batch;
    backend->upload(all, batch);
    const std::int64_t targets = batch.shape.targets;
    Operand h(probes, tokens, hidden, 0), scores(probes, 1, targets, 0);
    backend->embed(table(probes), batch, words.view, places.view, 2, h.view);
    backend->score(table(probes), batch, head.product, x.view, scores.view);
    for (std::int64_t p = 0; p < probes; ++p) {
      DeviceBatch alone;
      backend->upload(batch_of_probe(all, p), alone);
      EXPECT_EQ(alone.shape.targets, targets);
      Operand own_h(0, tokens, hidden, 0), own_scores(1, 1, targets, 0);
      backend->embed(table(1), alone, words.view, places.view, 2, own_h.view);
      backend->score(table(1), alone, head.product, x.view.probe(p), own_scores.view);
      EXPECT_TRUE(same_bits(h.view, p, own_h.view, 0)) << backend->name() << ", probe " << p;
      EXPECT_TRUE(same_bits(scores.view, p, own_scores.view, 0)) << backend->name() << ", probe " << p;
      EXPECT_FALSE(p > 0 && same_bits(h.view, p, h.view, 0));
      EXPECT_FALSE(p > 0 && same_bits(scores.view, p, scores.view, 0));
    }
    EXPECT_TRUE(h.untouched_around());
    EXPECT_TRUE(scores.untouched_around());
  }
}

TEST_F(Operations, TokensOfProbesThatAreNotThereAreRefused) {
  const PackedBatch shared = packed({1, 31, 33}, 50);
  const Operand words(0, 50, 33, 1), x(0, 65, 33, 3);
  const RandomProduct head(33, {50}, {0}, true, 5);
  prepare(65, 3, {{&head.product, Epilogue{}, true}});
  for (Backend* backend : {cpu.get(), reference.get()}) {
    DeviceBatch batch;
    backend->upload(with_own_tokens(shared, 3, 50), batch);
    Operand of_two(2, 65, 33, 0), of_all(0, 65, 33, 0), scores(0, 1, batch.shape.targets, 0);
    EXPECT_THROW(backend->embed(table(2), batch, words.view, {}, 0, of_two.view), DeviceError);
    EXPECT_THROW(backend->embed(table(3), batch, words.view, {}, 0, of_all.view), DeviceError);
    EXPECT_THROW(backend->score(table(3), batch, head.product, x.view, scores.view), DeviceError);
    // Rows of each probe's own are of no use for what all share.
    Operand some(3, 65, 33, 0);
    EXPECT_THROW(backend->gather(table(3), x.view, batch.tokens, of_all.view), DeviceError);
    PackedBatch uneven = with_own_tokens(shared, 3, 50);
    uneven.tokens.pop_back();
    EXPECT_THROW(backend->upload(uneven, batch), DeviceError);
    PackedBatch outside = with_own_tokens(shared, 3, 50);
    outside.tokens.back() = 50;
    backend->upload(outside, batch);
    EXPECT_THROW(backend->embed(table(3), batch, words.view, {}, 0, some.view), DeviceError);
  }
}

TEST_F(Operations, ResidualNorm) {
  for (const std::int64_t cols : {1, 31, 33, 257, 320}) {
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      for (const int deltas : {0, 1, 2}) {
        for (const std::int64_t probes : {0, 1, 3}) {  // 0: all shared
          SCOPED_TRACE(
              fmt::format("cols {}, kind {}, {} deltas, {} probes", cols, int(kind), deltas, probes));
          const Operand h(probes == 3 ? 0 : probes, 33, cols, 1), d0(0, 33, cols, 2), d1(probes, 33, cols, 3);
          const Operand weight(0, 1, cols, 4), bias(0, 1, cols, 5);
          const std::vector<View> all = {d0.view, d1.view};
          const std::span<const View> used(all.data(), static_cast<std::size_t>(deltas));
          const Norm norm{.kind = kind,
                          .weight = weight.view,
                          .bias = kind == NormKind::layer && deltas > 0 ? bias.view : View{},
                          .epsilon = 1e-5f};
          const ProbeTable probe_table = table(std::max<std::int64_t>(probes, 1));
          Operand x(probes, 33, cols, 0), x_expected(probes, 33, cols, 0);
          Operand sum(probes, 33, cols, 0), sum_expected(probes, 33, cols, 0);
          cpu->residual_norm(probe_table, h.view, used, sum.view, norm, x.view);
          reference->residual_norm(probe_table, h.view, used, sum_expected.view, norm, x_expected.view);
          expect_near(sum, sum_expected, probes, 0.0);  // the same additions in the same order
          // x is below sqrt(cols) (norm) times 1 (weight); the scale's error is that of a mean over the row.
          // One column less its mean is 0 but for rounding, which layer norm then divides by sqrt(epsilon).
          const double tolerance = 16 * u * std::sqrt(double(cols)) + (cols == 1 ? 1e-3 : 0.0);
          expect_near(x, x_expected, probes, tolerance);
          // Not stored, the sum is the same.
          Operand alone(probes, 33, cols, 0);
          cpu->residual_norm(probe_table, h.view, used, {}, norm, alone.view);
          expect_near(alone, x, probes, 0.0);
        }
      }
    }
  }
}

TEST_F(Operations, ResidualNormInPlace) {
  Operand h(3, 31, 33, 1), h_reference(3, 31, 33, 1);
  const Operand delta(3, 31, 33, 2), weight(0, 1, 33, 3);
  Operand x(3, 31, 33, 0), x_expected(3, 31, 33, 0);
  const Norm norm{.kind = NormKind::rms, .weight = weight.view, .bias = {}, .epsilon = 1e-6f};
  const ProbeTable probes = table(3);
  cpu->residual_norm(probes, h.view, {{delta.view}}, h.view, norm, x.view);
  reference->residual_norm(probes, h_reference.view, {{delta.view}}, h_reference.view, norm, x_expected.view);
  expect_near(h, h_reference, 3, 0.0);
  expect_near(x, x_expected, 3, 16 * u * std::sqrt(33.0));
}

TEST_F(Operations, ResidualNormInPlaceOfItsLastDelta) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
    for (const std::int64_t h_probes : {0, 3}) {
      const Operand h(h_probes, 31, 33, 1), first(3, 31, 33, 2), second(3, 31, 33, 3), weight(0, 1, 33, 4);
      const Norm norm{.kind = kind, .weight = weight.view, .bias = {}, .epsilon = 1e-6f};
      for (const auto& backend : {&cpu, &reference}) {
        Operand sum(3, 31, 33, 0), x(3, 31, 33, 0), sum_apart(3, 31, 33, 0), place(3, 31, 33, 3);
        (*backend)->residual_norm(table(3), h.view, {{first.view, second.view}}, sum_apart.view, norm,
                                  x.view);
        (*backend)->residual_norm(table(3), h.view, {{first.view, place.view}}, sum.view, norm, place.view);
        expect_near(sum, sum_apart, 3, 0.0);
        expect_near(place, x, 3, 0.0);
      }
    }
  }
}

TEST_F(Operations, Product) {
  for (const std::int64_t rows : {1, 31, 33, 257}) {
    for (const std::int64_t in : {1, 33, 257}) {
      for (const std::int64_t probes : {1, 3, 7}) {
        if (probes == 7 && rows == 257 && in == 257) continue;  // the reference is slow
        for (const bool shared_x : {false, true}) {
          for (const NoiseKind noise : {NoiseKind::gaussian, NoiseKind::rademacher}) {
            if (noise == NoiseKind::rademacher && rows != 33) continue;
            SCOPED_TRACE(fmt::format("rows {}, in {}, {} probes, shared {}, noise {}", rows, in, probes,
                                     shared_x, int(noise)));
            // q and v perturbed with different ranks, k not.
            RandomProduct random(in, {31, 5, 33}, {8, 0, 3}, probes == 3, 1);
            prepare(rows, probes, {&random.product});
            const Operand x(shared_x ? 0 : probes, rows, in, 2);
            const std::int64_t k_probes = shared_x ? 0 : probes;
            Operand actual[] = {{probes, rows, 31, 0}, {k_probes, rows, 5, 0}, {probes, rows, 33, 0}};
            Operand expected[] = {{probes, rows, 31, 0}, {k_probes, rows, 5, 0}, {probes, rows, 33, 0}};
            const ProbeTable probe_table = table(probes, noise);
            cpu->product(probe_table, random.product, 0, x.view,
                         {{actual[0].view, actual[1].view, actual[2].view}}, {});
            reference->product(probe_table, random.product, 0, x.view,
                               {{expected[0].view, expected[1].view, expected[2].view}}, {});
            // W x and B s are sums of terms below 1 and s ~ sqrt(in); scaling 2.
            const double tolerance = 16 * u * double(in) + 64 * u * std::sqrt(double(in));
            for (int i = 0; i < 3; ++i) expect_near(actual[i], expected[i], probes, tolerance);

            // k and v alone: the unperturbed part to the same bits.
            Operand k(k_probes, rows, 5, 0), v(probes, rows, 33, 0);
            cpu->product(probe_table, random.product, 1, x.view, {{k.view, v.view}}, {});
            expect_near(k, actual[1], probes, 0.0);
            expect_near(v, expected[2], probes, tolerance);
          }
        }
      }
    }
  }
}

/// y = W x + b + scaling (B + e Z_B)(A + e Z_A) x, with the noise of mezzo/core/noise.h by tensor id,
/// row-major.
TEST_F(Operations, TailsTakeTheNoiseOfTheirTensors) {
  constexpr std::int64_t in = 5, rank = 2, out = 3;
  RandomProduct random(in, {4, out}, {0, rank}, true, 1);
  prepare(1, 1, {&random.product});
  const Operand x(0, 1, in, 2);
  const LowRankTail& tail = *random.product.parts[1].tail();
  for (const NoiseKind kind : {NoiseKind::gaussian, NoiseKind::rademacher}) {
    ProbeTable probes;
    const Probe probe{.seed = 77, .direction = 5, .epsilon = -0.5f};
    cpu->upload({{probe}}, kind, probes);
    std::vector<double> s(rank);
    for (std::uint64_t k = 0; k < rank; ++k) {
      for (std::uint64_t i = 0; i < in; ++i) {
        const double z = noise_at(kind, probe.seed, tail.a_noise, k * in + i);
        s[k] += (tail.a.as<float>()[k * in + i] + probe.epsilon * z) * x.at(0, 0, std::int64_t(i));
      }
    }
    Operand expected(1, 1, out, 3);
    for (std::uint64_t o = 0; o < out; ++o) {
      double y = random.bias.at(0, 0, 4 + std::int64_t(o));
      for (std::int64_t i = 0; i < in; ++i)
        y += double{random.weight.at(0, 4 + std::int64_t(o), i)} * x.at(0, 0, i);
      for (std::uint64_t k = 0; k < rank; ++k) {
        const double z = noise_at(kind, probe.seed, tail.b_noise, o * rank + k);
        y += tail.scaling * (tail.b.as<float>()[o * rank + k] + probe.epsilon * z) * s[k];
      }
      expected.at(0, 0, std::int64_t(o)) = float(y);
    }
    for (Backend* backend : {cpu.get(), reference.get()}) {
      Operand y(1, 1, out, 0);
      backend->product(probes, random.product, 1, x.view, {{y.view}}, {});
      expect_near(y, expected, 1, 64 * u);  // a dozen terms of size 1 to 5
    }
  }
}

/// y = W x + e / sqrt(r) U V^T x: against the product in double, whose noise is made element by element, and
/// against a product whose weight was moved along the noise that an update takes.
TEST_F(Operations, AWeightsOwnNoiseIsAnOuterProduct) {
  for (const std::int64_t rank : {1, 3}) {
    for (const std::int64_t in : {1, 33, 257}) {
      for (const NoiseKind noise : {NoiseKind::gaussian, NoiseKind::rademacher}) {
        RandomProduct random(in, {31, 5, 33}, {rank, 0, rank}, true, 1, true);
        prepare(33, 3, {&random.product});
        const Operand x(3, 33, in, 2);
        ProbeTable probes;
        const std::vector<Probe> three = {{.seed = 7, .direction = 0, .epsilon = 0.25f},
                                          {.seed = 7, .direction = 0, .epsilon = -0.25f},
                                          {.seed = 8, .direction = 1, .epsilon = 0.0f}};
        cpu->upload(three, noise, probes);
        const ExactProduct exact = exact_product(random, x, three, noise, DType::f32);
        for (Backend* backend : {cpu.get(), reference.get()}) {
          Operand y(3, 33, 69, 0);
          backend->product(probes, random.product, 0, x.view, {{y.view}}, {});
          expect_product(y, exact, 3, 0, DType::f32);
        }
        for (std::int64_t j = 0; j < 31; ++j) {  // of the first part, in probe 0
          const TensorNoise whole(0, rank, in);
          double y = double(random.bias.at(0, 0, j));
          for (std::int64_t i = 0; i < in; ++i) {
            const auto element = static_cast<std::uint64_t>(j * in + i);
            const double z = double(tensor_noise_at(noise, 7, whole, element));
            y += (double(random.weight.at(0, j, i)) + 0.25 * z) * double(x.at(0, 4, i));
          }
          EXPECT_NEAR(exact.y[exact.at(0, 4, j)], y, 1e-5 * (1.0 + std::abs(y)));
        }
      }
    }
  }
}

TEST_F(Operations, OneOutputOfSeveralParts) {
  RandomProduct random(33, {31, 5, 33}, {8, 0, 3}, true, 1);
  for (const bool shared_x : {false, true}) {
    prepare(257, 3, {&random.product});
    const Operand x(shared_x ? 0 : 3, 257, 33, 2);
    Operand actual(3, 257, 69, 0), expected(3, 257, 69, 0);
    const ProbeTable probes = table(3);
    cpu->product(probes, random.product, 0, x.view, {{actual.view}}, {});
    reference->product(probes, random.product, 0, x.view, {{expected.view}}, {});
    expect_near(actual, expected, 3, 64 * u * 33);
  }
}

TEST_F(Operations, ProductWithActivation) {
  for (const Activation activation :
       {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf, Activation::relu}) {
    for (const bool shared_x : {false, true}) {
      SCOPED_TRACE(fmt::format("activation {}, shared {}", int(activation), shared_x));
      RandomProduct random(33, {257}, {4}, true, 1);
      prepare(31, 3, {&random.product});
      const Operand x(shared_x ? 0 : 3, 31, 33, 2);
      Operand actual(3, 31, 257, 0), expected(3, 31, 257, 0);
      const ProbeTable probes = table(3);
      cpu->product(probes, random.product, 0, x.view, {{actual.view}},
                   {.activation = activation, .gated = false});
      reference->product(probes, random.product, 0, x.view, {{expected.view}},
                         {.activation = activation, .gated = false});
      expect_near(actual, expected, 3, 64 * u * 33);  // slopes of the activations are below 1.2
    }
  }
}

TEST_F(Operations, GatedProduct) {
  for (const std::int64_t ranks : {0, 5}) {
    for (const int sharing : {0, 1, 2}) {              // x and y per-probe; x shared; both shared
      for (const std::int64_t cols : {1, 33, 2500}) {  // 2500: more than a tile of 257 rows holds
        if (sharing == 2 && ranks > 0) continue;
        if (cols == 2500 && sharing == 1) continue;
        SCOPED_TRACE(fmt::format("rank {}, sharing {}, cols {}", ranks, sharing, cols));
        const std::int64_t rows = cols == 2500 ? 257 : 33;
        RandomProduct random(31, {cols, cols}, {ranks, ranks}, cols == 33, 1);
        prepare(rows, 2, {&random.product});
        const Operand x(sharing == 0 ? 2 : 0, rows, 31, 2);
        Operand actual(sharing == 2 ? 0 : 2, rows, cols, 0), expected(sharing == 2 ? 0 : 2, rows, cols, 0);
        const ProbeTable probes = table(2);
        const Epilogue epilogue{.activation = cols == 1 ? Activation::gelu_tanh : Activation::silu,
                                .gated = true};
        cpu->product(probes, random.product, 0, x.view, {{actual.view}}, epilogue);
        reference->product(probes, random.product, 0, x.view, {{expected.view}}, epilogue);
        // A product of two values with errors like those of Product, each of size up to about 30.
        expect_near(actual, expected, 2, 64 * u * 31 * 30);
      }
    }
  }
}

TEST_F(Operations, Rotate) {
  const PackedBatch packed_batch = packed({1, 31, 33}, 50);
  DeviceBatch batch;
  cpu->upload(packed_batch, batch);
  for (const RopeStyle style : {RopeStyle::half_split, RopeStyle::interleaved}) {
    for (const std::int64_t head_dim : {32, 64, 80}) {
      for (const std::int64_t dims : {head_dim, head_dim / 2}) {
        for (const bool some_rows : {false, true}) {
          const Operand cosines(0, 40, dims / 2, 1), sines(0, 40, dims / 2, 2);
          const Rope rope{.style = style, .dims = dims, .cosines = cosines.view, .sines = sines.view};
          std::vector<std::int32_t> rows = {0, 5, 31, 64};
          const View index = some_rows ? dense(rows.data(), DType::i32, 1, 4) : View{};
          Operand actual(3, some_rows ? 4 : 65, 5 * head_dim, 3),
              expected(3, some_rows ? 4 : 65, 5 * head_dim, 3);
          const ProbeTable probes = table(3);
          cpu->rotate(probes, batch, rope, index, head_dim, actual.view);
          reference->rotate(probes, batch, rope, index, head_dim, expected.view);
          expect_near(actual, expected, 3, 4 * u);  // two products and a sum, all below 2
        }
      }
    }
  }
}

TEST_F(Operations, Attention) {
  struct Heads {
    std::int64_t heads, kv_heads, head_dim;
  };
  for (const Heads h : {Heads{1, 1, 32}, {5, 5, 64}, {10, 5, 32}, {10, 2, 80}, {2, 1, 7}}) {
    for (const std::vector<std::int32_t>& lengths :
         {std::vector<std::int32_t>{1}, {31, 1, 33}, {16, 15, 17, 4}, {257}}) {
      for (const int sharing : {0, 1, 2}) {  // all per-probe; k shared; q and v shared
        for (const bool some_rows : {false, true}) {
          SCOPED_TRACE(fmt::format("heads {}, {}, {}; {} sequences from {}; sharing {}; some rows {}",
                                   h.heads, h.kv_heads, h.head_dim, lengths.size(), lengths[0], sharing,
                                   some_rows));
          const PackedBatch packed_batch = packed(lengths, 50);
          DeviceBatch batch;
          cpu->upload(packed_batch, batch);
          const auto tokens = static_cast<std::int64_t>(packed_batch.tokens.size());
          std::vector<std::int32_t> rows;
          for (std::int32_t t = 0; t < tokens; ++t) {
            if (t % 5 == 0 || t + 1 == tokens) rows.push_back(t);
          }
          const View index = some_rows ? dense(rows.data(), DType::i32, 1, std::ssize(rows)) : View{};
          const std::int64_t queries = some_rows ? std::ssize(rows) : tokens;
          const AttentionShape shape{h.heads, h.kv_heads, h.head_dim, 1.0f / std::sqrt(float(h.head_dim))};
          prepare(tokens, 2, {}, shape, batch.shape.longest);
          const Operand q(sharing == 2 ? 0 : 2, queries, h.heads * h.head_dim, 1);
          const Operand k(sharing == 1 ? 0 : 2, tokens, h.kv_heads * h.head_dim, 2);
          const Operand v(sharing == 2 ? 0 : 2, tokens, h.kv_heads * h.head_dim, 3);
          Operand actual(2, queries, h.heads * h.head_dim, 0), expected(2, queries, h.heads * h.head_dim, 0);
          const ProbeTable probes = table(2);
          cpu->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, index, actual.view);
          reference->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, index, expected.view);
          // Averages of values below 1; a weight's relative error is that of a score, a sum of head_dim
          // terms.
          expect_near(actual, expected, 2, 16 * u * std::sqrt(double(h.head_dim)));
        }
      }
    }
  }
}

TEST_F(Operations, AttentionOverAWindowAndOfCappedScores) {
  for (const std::int64_t window : {1, 2, 5, 16, 17, 33, 300}) {
    for (const float cap : {0.0f, 0.7f, 50.0f}) {
      for (const std::int32_t every : {1, 7}) {
        SCOPED_TRACE(fmt::format("window {}, cap {}, each {}. row", window, cap, every));
        const PackedBatch packed_batch = packed({31, 1, 33, 97}, 50);
        DeviceBatch batch;
        cpu->upload(packed_batch, batch);
        const std::int64_t tokens = 162;
        std::vector<std::int32_t> rows;
        for (std::int32_t t = every - 1; t < tokens; t += every) rows.push_back(t);
        const View index = every > 1 ? dense(rows.data(), DType::i32, 1, std::ssize(rows)) : View{};
        const AttentionShape shape{4, 2, 10, 0.3f, window, cap};
        prepare(tokens, 2, {}, shape, batch.shape.longest);
        const Operand q(2, std::ssize(rows), 40, 1), k(2, tokens, 20, 2), v(2, tokens, 20, 3);
        Operand actual(2, std::ssize(rows), 40, 0), expected(2, std::ssize(rows), 40, 0);
        const ProbeTable probes = table(2);
        cpu->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, index, actual.view);
        reference->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, index, expected.view);
        // As above; a cap c leaves c times the rounding of a number near 1 in a score.
        expect_near(actual, expected, 2, 16 * u * std::max(std::sqrt(10.0), double{cap}));
      }
    }
  }
}

TEST_F(Operations, AttentionOverLargeScores) {
  // Scores of +-800: exp would overflow without the shift by the largest.
  const PackedBatch packed_batch = packed({33}, 50);
  DeviceBatch batch;
  cpu->upload(packed_batch, batch);
  const AttentionShape shape{1, 1, 32, 100.0f};
  prepare(33, 1, {}, shape, 33);
  const Operand q(1, 33, 32, 1), k(1, 33, 32, 2), v(1, 33, 32, 3);
  Operand actual(1, 33, 32, 0), expected(1, 33, 32, 0);
  const ProbeTable probes = table(1);
  cpu->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, {}, actual.view);
  reference->attention(probes, batch, shape, nullptr, q.view, k.view, v.view, {}, expected.view);
  expect_near(actual, expected, 1, 16 * u * 800);  // a score's absolute error is its weight's relative one
}

TEST_F(Operations, ScaleSoftCapAndGate) {
  const ProbeTable probes = table(3);
  for (const std::int64_t cols : {1, 31, 33, 257}) {
    Operand actual(3, 5, cols, 1), expected(3, 5, cols, 1);
    cpu->scale(probes, 5.5f, actual.view);
    reference->scale(probes, 5.5f, expected.view);
    expect_near(actual, expected, 3, 0.0);
    for (const float cap : {0.5f, 30.0f}) {
      cpu->soft_cap(probes, cap, actual.view);
      reference->soft_cap(probes, cap, expected.view);
      expect_near(actual, expected, 3, 4 * u * cap);
    }
    for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::relu}) {
      Operand both(3, 5, 2 * cols, 2), same(3, 5, 2 * cols, 2), y(3, 5, cols, 0), want(3, 5, cols, 0);
      cpu->gate(probes, activation, both.view, y.view);
      reference->gate(probes, activation, same.view, want.view);
      expect_near(y, want, 3, 8 * u);
      EXPECT_THROW(cpu->gate(probes, activation, y.view, both.view), DeviceError);
    }
  }
}

TEST_F(Operations, Gather) {
  std::vector<std::int32_t> rows = {0, 3, 3, 30};
  const Operand x(3, 31, 33, 1);
  Operand actual(3, 4, 33, 0), expected(3, 4, 33, 0);
  const ProbeTable probes = table(3);
  cpu->gather(probes, x.view, dense(rows.data(), DType::i32, 1, 4), actual.view);
  reference->gather(probes, x.view, dense(rows.data(), DType::i32, 1, 4), expected.view);
  expect_near(actual, expected, 3, 0.0);
}

TEST_F(Operations, SplitHeads) {
  for (const std::int64_t head_dim : {1, 31, 33}) {
    constexpr std::int64_t heads = 3;
    const AttentionShape shape{.heads = heads, .kv_heads = heads, .head_dim = head_dim};
    const Operand x(2, 31, 3 * heads * head_dim, 1);
    const ProbeTable probes = table(2);
    for (Backend* const backend : {cpu.get(), reference.get()}) {
      Operand out(2, 31, 3 * heads * head_dim, 0);
      backend->split_heads(probes, shape, x.view, out.view);
      for (std::int64_t i = 0; i < 31; ++i) {
        for (std::int64_t head = 0; head < heads; ++head) {
          for (std::int64_t part = 0; part < 3; ++part) {  // q, k, v
            for (std::int64_t d = 0; d < head_dim; ++d) {
              EXPECT_EQ(out.at(1, i, (part * heads + head) * head_dim + d),
                        x.at(1, i, (head * 3 + part) * head_dim + d));
            }
          }
        }
      }
      EXPECT_TRUE(out.untouched_around());
    }
    AttentionShape grouped = shape;
    grouped.kv_heads = 1;
    Operand out(2, 31, 3 * heads * head_dim, 0);
    EXPECT_THROW(cpu->split_heads(probes, grouped, x.view, out.view), DeviceError);
  }
}

TEST_F(Operations, Score) {
  for (const std::int32_t vocabulary : {1, 33, 257, 5000}) {  // 5000: three chunks
    for (const bool bias : {false, true}) {
      for (const bool shared : {false, true}) {
        SCOPED_TRACE(fmt::format("vocabulary {}, bias {}, shared {}", vocabulary, bias, shared));
        const PackedBatch packed_batch = packed({1, 31, vocabulary == 257 ? 257 : 3}, vocabulary);
        DeviceBatch batch;
        cpu->upload(packed_batch, batch);
        RandomProduct head(33, {vocabulary}, {0}, bias, 1);
        prepare(batch.shape.tokens, 3, {&head.product});
        const Operand x(shared ? 0 : 3, batch.shape.loss_rows, 33, 2);
        Operand actual(shared ? 0 : 3, 1, batch.shape.targets, 0);
        Operand expected(shared ? 0 : 3, 1, batch.shape.targets, 0);
        const ProbeTable probes = table(3);
        cpu->score(probes, batch, head.product, x.view, actual.view);
        reference->score(probes, batch, head.product, x.view, expected.view);
        Operand capped(shared ? 0 : 3, 1, batch.shape.targets, 0);
        Operand capped_expected(shared ? 0 : 3, 1, batch.shape.targets, 0);
        head.product.score_cap = 1.5f;
        cpu->score(probes, batch, head.product, x.view, capped.view);
        reference->score(probes, batch, head.product, x.view, capped_expected.view);
        expect_near(capped, capped_expected, 3, 32 * u * 33);
        // Logits are sums of 33 terms, up to about 10; the log of the sum adds the rounding of the result,
        // ~20.
        expect_near(actual, expected, 3, 32 * u * 33);
      }
    }
  }
}

/// What a step is made of: g = (L+ - L-) / 2 epsilon of a small model, one LoRA product under a head. The cpu
/// rounds A + epsilon Z to fp32, the reference does not; both store y and log-probabilities in fp32. Errors
/// are relative to the size of g over the directions; docs/numerics.md quotes them.
TEST_F(Operations, ProjectedGradient) {
  constexpr std::int64_t hidden = 320;
  constexpr std::int64_t directions = 8;
  const PackedBatch packed_batch = packed({65}, 1000);
  DeviceBatch batch;
  cpu->upload(packed_batch, batch);
  RandomProduct layer(hidden, {hidden}, {8}, false, 1), head(hidden, {1000}, {0}, false, 20);
  const auto scale = [](View view, float by) {
    for (std::int64_t i = 0; i < view.rows; ++i) {
      for (std::int64_t j = 0; j < view.cols; ++j) view.as<float>()[i * view.row_stride + j] *= by;
    }
  };
  scale(layer.weight.view, 0.05f);
  scale(head.weight.view, 0.1f);
  for (const Operand& factor : layer.factors) scale(factor.view, 0.05f);
  prepare(65, 2 * directions, {&layer.product, &head.product});
  const Operand x(0, 65, hidden, 3);

  for (const auto& [epsilon, tolerance] : {std::pair{1e-2f, 2e-5}, {1e-3f, 2e-4}}) {
    std::vector<Probe> probes;
    for (std::uint32_t p = 0; p < 2 * directions; ++p) {
      probes.push_back({.seed = p / 2 + 1, .direction = p / 2, .epsilon = p % 2 == 0 ? epsilon : -epsilon});
    }
    ProbeTable probe_table;
    cpu->upload(probes, NoiseKind::gaussian, probe_table);
    const auto gradients = [&](Backend& backend) {
      Operand y(2 * directions, 65, hidden, 0), scores(2 * directions, 1, batch.shape.targets, 0);
      backend.product(probe_table, layer.product, 0, x.view, {{y.view}}, {});
      backend.score(probe_table, batch, head.product, y.view, scores.view);
      std::vector<double> g;
      for (std::int64_t k = 0; k < directions; ++k) {
        double difference = 0.0;
        for (std::int64_t j = 0; j < batch.shape.targets; ++j) {
          difference += double{scores.at(2 * k + 1, 0, j)} - scores.at(2 * k, 0, j);
        }
        g.push_back(difference / double(batch.shape.targets) / (2 * double{epsilon}));
      }
      return g;
    };
    const std::vector<double> actual = gradients(*cpu), expected = gradients(*reference);
    double error = 0.0, size = 0.0;
    for (std::size_t k = 0; k < actual.size(); ++k) {
      error += (actual[k] - expected[k]) * (actual[k] - expected[k]);
      size += expected[k] * expected[k];
    }
    EXPECT_LE(std::sqrt(error / size), tolerance) << "epsilon " << epsilon;
    RecordProperty(fmt::format("error_at_{}", epsilon), fmt::format("{:.2e}", std::sqrt(error / size)));
    fmt::print("epsilon {}: relative error of g {:.2e}, rms g {:.3f}\n", epsilon, std::sqrt(error / size),
               std::sqrt(size / directions));
  }
}

TEST_F(Operations, AssignTakesAWeightFromItsTrainable) {
  const Operand source(0, 31, 33, 1);
  for (Backend* backend : {cpu.get(), reference.get()}) {
    Operand weight(0, 31, 33, 2);
    backend->assign(weight.view, source.view);
    expect_near(weight, source, 1, 0.0);
    EXPECT_THROW(backend->assign(weight.view, source.view.row_range(0, 30)), DeviceError);
  }
}

/// Rows of odd lengths, of which a row may begin within a block of noise; two probes of a direction at once.
TEST_F(Operations, PerturbMovesATensorForEachProbeOfADirection) {
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 257}, {31, 33}, {3, 5000}}) {
    for (const bool bf16 : {false, true}) {
      const auto count = static_cast<std::size_t>(rows * cols);
      std::vector<float> values(count);
      std::vector<std::uint16_t> rounded(count);
      for (std::size_t i = 0; i < count; ++i) {
        values[i] = 0.013f * static_cast<float>(i % 101) - 0.4f;
        rounded[i] = float_to_bf16(values[i]);
      }
      const DenseNoise noise{.value = bf16 ? dense(rounded.data(), DType::bf16, rows, cols)
                                           : dense(values.data(), DType::f32, rows, cols),
                             .tensor = 4};
      for (Backend* backend : {cpu.get(), reference.get()}) {
        Operand out(2, rows, cols, 0);
        const ProbeTable probes = table(3);  // +, - of one direction, then another
        backend->perturb(probes, 0, 2, noise, 1.0f, out.view);
        for (std::int64_t p = 0; p < 2; ++p) {
          const Probe& probe = probes.probes[static_cast<std::size_t>(p)];
          for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < cols; ++j) {
              const auto e = static_cast<std::uint64_t>(i * cols + j);
              const float of = bf16 ? bf16_to_float(rounded[e]) : values[e];
              ASSERT_EQ(out.at(p, i, j),
                        std::fma(probe.epsilon, noise_at(probes.noise, probe.seed, 4, e), of + 1.0f))
                  << backend->name() << " " << i << " " << j;
            }
          }
        }
        EXPECT_THROW(backend->perturb(probes, 1, 2, noise, 0.0f, out.view), DeviceError);  // two directions
        EXPECT_THROW(backend->perturb(probes, 2, 2, noise, 0.0f, out.view), DeviceError);
        EXPECT_THROW(backend->perturb(probes, 0, 2, noise, 0.0f, out.view.probe(0)), DeviceError);
        EXPECT_THROW(backend->perturb(probes, 0, 1, {}, 0.0f, out.view), DeviceError);
      }
    }
  }
}

TEST_F(Operations, Update) {
  Trainables actual, expected;
  for (const auto& [backend, trainables] : {std::pair{cpu.get(), &actual}, {reference.get(), &expected}}) {
    trainables->list = {{"a", 3, 11, 0, 2}, {"b", 257, 1, 33}, {"c", 1, 1, 290}};
    trainables->values = backend->allocate(291 * sizeof(float));
    for (int i = 0; i < 291; ++i) static_cast<float*>(trainables->values.data())[i] = 0.01f * float(i % 17);
    Trainables none;
    backend->update(*trainables, none, {{1, 2, 3}, {0.5f, 0.0f, -0.25f}, sgd_factors(1e-2f, 0.1f)},
                    NoiseKind::gaussian);
  }
  for (int i = 0; i < 291; ++i) {
    ASSERT_EQ(static_cast<float*>(actual.values.data())[i], static_cast<float*>(expected.values.data())[i])
        << i;
  }
  const std::uint64_t hash = cpu->hash(actual);
  EXPECT_EQ(hash, reference->hash(expected));
  static_cast<float*>(actual.values.data())[290] += 1e-3f;
  EXPECT_NE(hash, cpu->hash(actual));
}

TEST_F(Operations, LoadConvertsAndTransposes) {
  const std::vector<float> f32 = {1, 2, 3, 4, 5, 6};
  const std::vector<std::uint16_t> bf16 = {0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0};
  const std::vector<std::uint16_t> f16 = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600};
  for (Backend* backend : {cpu.get(), reference.get()}) {
    for (const auto& [dtype, source] : {std::pair<DType, const void*>{DType::f32, f32.data()},
                                        {DType::bf16, bf16.data()},
                                        {DType::f16, f16.data()}}) {
      Operand straight(0, 2, 3, 0), turned(0, 3, 2, 0);
      backend->load(straight.view, dtype, source, false);
      backend->load(turned.view, dtype, source, true);
      std::vector<float> read(6);
      backend->read(read, straight.view, 1);
      EXPECT_EQ(read, f32) << name_of(dtype);
      backend->read(read, turned.view, 1);
      EXPECT_EQ(read, (std::vector<float>{1, 4, 2, 5, 3, 6})) << name_of(dtype);
    }
    EXPECT_THROW(backend->load(Operand(0, 2, 3, 0).view, DType::i64, f32.data(), false), DeviceError);
  }
}

TEST_F(Operations, ScratchIsWhatWasPlanned) {
  RandomProduct random(320, {320, 160, 160}, {8, 0, 8}, false, 1);
  Workload workload{
      .largest = {.tokens = 480, .sequences = 32, .loss_rows = 32, .targets = 64, .longest = 40},
      .probes = 16,
      .products = {&random.product},
      .attention = {10, 5, 32, 1.0f}};
  const std::size_t planned = cpu->scratch_bytes(workload);
  EXPECT_GT(planned, 16u * (16 * 320 + 480 * 8) * sizeof(float));
  // Factors, s and sums grow with the probes; tiles do not.
  Workload more = workload;
  more.probes = 32;
  EXPECT_GT(cpu->scratch_bytes(more), planned);
  EXPECT_LT(cpu->scratch_bytes(more), 2 * planned);
}

TEST_F(Operations, SmallerPreparedWorkloadIsRefused) {
  RandomProduct random(33, {31}, {8}, false, 1);
  prepare(31, 1, {&random.product});
  const Operand x(2, 31, 33, 2);
  Operand y(2, 31, 31, 0);
  EXPECT_THROW(cpu->product(table(2), random.product, 0, x.view, {{y.view}}, {}), DeviceError);
}

/// The message with which `act` throws a DeviceError, or "".
template <typename Act>
std::string refusal(Act act) {
  try {
    act();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "";
}

TEST_F(Operations, PerturbationsThatNobodyServesAreRefusedBeforeARun) {
  RandomProduct random(33, {31, 5}, {8, 0}, false, 1);
  random.product.parts[1].perturbation = DenseNoise{};
  Workload workload{.largest = {.tokens = 3, .sequences = 1, .loss_rows = 3, .targets = 3, .longest = 3},
                    .probes = 2,
                    .products = {&random.product},
                    .attention = {}};
  for (Backend* backend : {cpu.get(), reference.get()}) {
    const std::string expected = fmt::format(
        "device {}: the perturbation of part 1 is of the kind dense noise, which this device does not serve",
        backend->name());
    EXPECT_EQ(refusal([&] { backend->choose(workload); }), expected);
    EXPECT_EQ(refusal([&] { backend->prepare(workload); }), expected);
  }
  random.product.parts[1].perturbation = {};
  EXPECT_EQ(refusal([&] { cpu->prepare(workload); }), "");
}

TEST_F(Operations, PerturbedHeadIsRefusedBeforeARun) {
  const RandomProduct random(33, {31}, {8}, false, 1);
  Workload workload{.largest = {.tokens = 3, .sequences = 1, .loss_rows = 3, .targets = 3, .longest = 3},
                    .probes = 2,
                    .products = {{&random.product, Epilogue{}, true}},
                    .attention = {}};
  for (Backend* backend : {cpu.get(), reference.get()}) {
    EXPECT_EQ(refusal([&] { backend->prepare(workload); }),
              fmt::format("device {}: part 0 is perturbed (low-rank tail), which no device serves in the "
                          "vocabulary's head",
                          backend->name()));
  }
}

TEST_F(Operations, WrongOperandsAreRefused) {
  RandomProduct random(33, {31, 5}, {8, 0}, false, 1);
  prepare(31, 2, {&random.product});
  const ProbeTable probes = table(2);
  const Operand x(2, 31, 33, 2), narrow(2, 31, 32, 2);
  Operand y(2, 31, 31, 0), shared(0, 31, 31, 0), k(2, 31, 5, 0), six(2, 31, 6, 0);
  for (Backend* backend : {cpu.get(), reference.get()}) {
    EXPECT_THROW(backend->product(probes, random.product, 0, narrow.view, {{y.view}}, {}), DeviceError);
    EXPECT_THROW(backend->product(probes, random.product, 0, x.view, {{shared.view}}, {}), DeviceError);
    EXPECT_THROW(backend->product(probes, random.product, 1, x.view, {{six.view}}, {}), DeviceError);
    EXPECT_THROW(backend->product(probes, random.product, 0, x.view, {{k.view}}, {.gated = true}),
                 DeviceError);
    std::vector<std::int32_t> rows = {31};
    Operand out(2, 1, 33, 0);
    EXPECT_THROW(backend->gather(probes, x.view, dense(rows.data(), DType::i32, 1, 1), out.view),
                 DeviceError);
  }
}

TEST(Factory, SaysWhatIsNotThere) {
  std::string reason;
  if (cuda_available(&reason)) GTEST_SKIP() << "a CUDA device is there";
  EXPECT_FALSE(reason.empty());
  EXPECT_THROW(make_backend({.device = DeviceKind::cuda}), DeviceError);
  EXPECT_THROW(make_backend({.device = DeviceKind::cpu, .threads = 0}), DeviceError);
}

}  // namespace
}  // namespace mezzo::test

// The cuda backend's operations of some families against the reference, in fp32 and in bf16; tolerances as in
// cuda_test.cc.
#include <cmath>
#include <numeric>

#include "cuda_operands.h"

namespace mezzo::test {
namespace {

using CudaFamilies = CudaTest;

TEST_P(CudaFamilies, NormOfHeads) {
  for (const std::int64_t head_dim : {1, 7, 32, 80, 128, 256}) {
    for (const std::int64_t rows : {1, 33, 257}) {
      for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
        for (const std::int64_t probes : {0, 3}) {
          SCOPED_TRACE(fmt::format("{} rows of {}, kind {}, {} probes", rows, head_dim, int(kind), probes));
          Operand x = operand(probes, rows, 3 * head_dim, 1);
          const Operand weight(0, 1, head_dim, 2), bias(0, 1, head_dim, 3);
          const Placed device_x = place(x, probes), device_weight = place_f32(weight, 1),
                       device_bias = place_f32(bias, 1);
          const bool with_bias = kind == NormKind::layer;
          cuda->norm_heads(table(3), {kind, device_weight.view, with_bias ? device_bias.view : View{}, 1e-5f},
                           head_dim, device_x.view);
          reference->norm_heads(table(3), {kind, weight.view, with_bias ? bias.view : View{}, 1e-5f},
                                head_dim, x.view);
          // As in ResidualNorm: a single value less its mean is what rounding leaves.
          expect_near(device_x.host(), x, probes, tolerance(256 * u + (head_dim == 1 ? 1e-3 : 0.0), 6.0));
        }
      }
    }
  }
  const Operand wide = operand(1, 1, 512, 1), weight(0, 1, 512, 2);
  const Placed device_x = place(wide, 1), device_weight = place_f32(weight, 1);
  EXPECT_THROW(cuda->norm_heads(table(1), {NormKind::rms, device_weight.view, {}, 1e-5f}, 512, device_x.view),
               DeviceError);
}

TEST_P(CudaFamilies, NormOfAnActivationInPlace) {
  for (const std::int64_t cols : {1, 31, 64, 257, 4096, 12297}) {
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      SCOPED_TRACE(fmt::format("cols {}, kind {}", cols, int(kind)));
      const Operand x = operand(3, 33, cols, 1);
      Operand expected(3, 33, cols, 0);
      const Operand weight(0, 1, cols, 2), bias(0, 1, cols, 3);
      const Placed device_x = place(x, 3), device_weight = place_f32(weight, 1),
                   device_bias = place_f32(bias, 1);
      const bool with_bias = kind == NormKind::layer;
      cuda->residual_norm(table(3), device_x.view, {}, {},
                          {kind, device_weight.view, with_bias ? device_bias.view : View{}, 1e-5f},
                          device_x.view);
      reference->residual_norm(table(3), x.view, {}, {},
                               {kind, weight.view, with_bias ? bias.view : View{}, 1e-5f}, expected.view);
      expect_near(device_x.host(), expected, 3,
                  tolerance(16 * u * std::sqrt(double(cols)) + (cols == 1 ? 1e-3 : 0.0), 6.0));
    }
  }
}

TEST_P(CudaFamilies, ScaleCapGateAndSplit) {
  for (const std::int64_t rows : {1, 31, 257}) {
    for (const std::int64_t cols : {1, 33, 64, 1000}) {
      SCOPED_TRACE(fmt::format("{} rows of {}", rows, cols));
      Operand h(2, rows, cols, 1);
      const Placed device_h = place_f32(h, 2);
      cuda->scale(table(2), 7.3f, device_h.view);
      reference->scale(table(2), 7.3f, h.view);
      expect_near(device_h.host(), h, 2, 0.0);

      Operand x = operand(2, rows, cols, 2);
      const Placed device_x = place(x, 2);
      cuda->soft_cap(table(2), 0.4f, device_x.view);
      reference->soft_cap(table(2), 0.4f, x.view);
      expect_near(device_x.host(), x, 2, tolerance(0x1p-22, 0.4));

      for (const Activation activation : {Activation::silu, Activation::gelu_tanh, Activation::gelu_erf}) {
        Operand both = operand(2, rows, 2 * cols, 3);
        const Placed device_both = place(both, 2);
        Operand expected(2, rows, cols, 0);
        const Placed out = room(expected, 2);
        cuda->gate(table(2), activation, device_both.view, out.view);
        reference->gate(table(2), activation, both.view, expected.view);
        expect_near(out.host(), expected, 2, tolerance(8 * u, 1.0));
      }
    }
    for (const std::int64_t head_dim : {1, 7, 64}) {
      const AttentionShape shape{.heads = 5, .kv_heads = 5, .head_dim = head_dim};
      const Operand x = operand(2, rows, 15 * head_dim, 4);
      Operand expected(2, rows, 15 * head_dim, 0);
      const Placed device_x = place(x, 2), out = room(expected, 2);
      cuda->split_heads(table(2), shape, device_x.view, out.view);
      reference->split_heads(table(2), shape, x.view, expected.view);
      expect_near(out.host(), expected, 2, 0.0);
    }
  }
}

TEST_P(CudaFamilies, SoftCapOfLargeValues) {
  Operand x(1, 1, 6, 0);
  const float values[] = {1e30f, -1e30f, 300.0f, -300.0f, 0.0f, 30.0f};
  for (int j = 0; j < 6; ++j) x.at(0, 0, j) = values[j];
  const Placed device_x = place_f32(x, 1);
  cuda->soft_cap(table(1), 30.0f, device_x.view);
  const Operand got = device_x.host();
  for (int j = 0; j < 6; ++j)
    EXPECT_NEAR(got.at(0, 0, j), 30.0 * std::tanh(values[j] / 30.0), 30 * 0x1p-22) << j;
}

TEST_P(CudaFamilies, AttentionWithWindowAndCap) {
  struct Form {
    std::int64_t window;
    float cap;
  };
  Sequences batch(*cuda, *reference, {1, 31, 257, 33, 200}, 7);
  const std::int64_t tokens = batch.tokens;
  for (const std::int64_t head_dim : {7, 64, 80, 96, 128, 256}) {
    const std::int64_t dims = head_dim == 7 ? 4 : head_dim / 32 * 16;
    const Operand cosines(0, 257, dims / 2, 7, 0), sines(0, 257, dims / 2, 8, 0);
    const Placed device_cosines(*cuda, cosines, 1, DType::f32), device_sines(*cuda, sines, 1, DType::f32);
    const Rope rope{RopeStyle::half_split, dims, cosines.view, sines.view};
    const Rope device_rope{RopeStyle::half_split, dims, device_cosines.view, device_sines.view};
    for (const Form form :
         {Form{1, 0.0f}, {5, 0.0f}, {64, 0.0f}, {65, 0.7f}, {150, 0.0f}, {0, 0.7f}, {4096, 0.0f}}) {
      for (const bool rotary : {false, true}) {
        for (const bool some_rows : {false, true}) {
          SCOPED_TRACE(fmt::format("head_dim {}, window {}, cap {}, rotary {}, some rows {}", head_dim,
                                   form.window, form.cap, rotary, some_rows));
          const std::int64_t queries = some_rows ? std::ssize(batch.rows) : tokens;
          const AttentionShape shape{.heads = 4,
                                     .kv_heads = 2,
                                     .head_dim = head_dim,
                                     .scale = 1.0f / std::sqrt(float(head_dim)),
                                     .window = form.window,
                                     .soft_cap = form.cap};
          const Operand q = operand(2, queries, 4 * head_dim, 1), k = operand(2, tokens, 2 * head_dim, 2),
                        v = operand(2, tokens, 2 * head_dim, 3);
          const Placed device_q = place(q, 2), device_k = place(k, 2), device_v = place(v, 2);
          Operand expected(2, queries, 4 * head_dim, 0);
          const Placed out = room(expected, 2);
          const ProbeTable probes = table(2);
          reference->attention(probes, batch.on_reference, shape, rotary ? &rope : nullptr, q.view, k.view,
                               v.view, some_rows ? batch.host_rows() : View{}, expected.view);
          cuda->attention(probes, batch.on_card, shape, rotary ? &device_rope : nullptr, device_q.view,
                          device_k.view, device_v.view, some_rows ? batch.index.view() : View{}, out.view);
          // As in Attention and AttentionWithRope; a cap's own error is 2^-22 of it.
          expect_near(out.host(), expected, 2,
                      tolerance(64 * u * std::sqrt(double(head_dim)) + 0x1p-20, rotary ? 4.0 : 2.0));
        }
      }
    }
  }
}

// A sequence shorter than the window has the same bits beside one that is longer, where other kernels run.
TEST_P(CudaFamilies, AWindowDoesNotDependOnTheCompany) {
  for (const std::int64_t head_dim : {64, 128}) {
    const AttentionShape shape{
        .heads = 2, .kv_heads = 1, .head_dim = head_dim, .scale = 0.125f, .window = 100};
    const std::int64_t tokens = 99 + 300;
    const Operand q = operand(1, tokens, 2 * head_dim, 1), k = operand(1, tokens, head_dim, 2),
                  v = operand(1, tokens, head_dim, 3);
    const auto attend = [&](const std::vector<std::int32_t>& lengths) {
      const std::int64_t count = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
      DeviceBatch batch;
      cuda->upload(packed(lengths, 50), batch);
      const Placed all_q = place(q, 1), all_k = place(k, 1), all_v = place(v, 1);
      const auto first = [&](View view) {
        view.rows = count;
        return view;
      };
      const Placed out = room(Operand(1, count, 2 * head_dim, 0), 1);
      cuda->attention(table(1), batch, shape, nullptr, first(all_q.view), first(all_k.view),
                      first(all_v.view), {}, out.view);
      return out.host();
    };
    const Operand alone = attend({99}), beside = attend({99, 300});
    EXPECT_TRUE(same_bits(alone.view, 0, beside.view.row_range(0, 99), 0)) << head_dim;
  }
}

TEST_P(CudaFamilies, ScoreOfCappedLogits) {
  for (const auto& [vocabulary, in] :
       {std::pair<std::int32_t, std::int64_t>{33, 31}, {257, 64}, {2500, 257}}) {
    const PackedBatch packed_batch = packed({1, 31, 33}, vocabulary);
    DeviceBatch batch, host_batch;
    cuda->upload(packed_batch, batch);
    reference->upload(packed_batch, host_batch);
    RandomProduct head(in, {vocabulary}, {0}, false, 1);
    head.product.score_cap = 3.0f;
    const DeviceProduct device(*cuda, head, dtype);
    prepare(batch.shape.tokens, 2, {{&device.product, {}, true}});
    const Operand x = operand(2, batch.shape.loss_rows, in, 2);
    Operand expected(2, 1, batch.shape.targets, 0);
    const ProbeTable probes = table(2);
    reference->score(probes, host_batch, head.product, x.view, expected.view);
    const Placed device_x = place(x, 2, cuda->input_stride(device.product));
    const Placed out = room(expected, 2, DType::f32);
    cuda->score(probes, batch, device.product, device_x.view, out.view);
    expect_near(out.host(), expected, 2, 32 * u * double(in + 32));
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, CudaFamilies, ::testing::Values(true, false),
                         [](const auto& which) { return which.param ? "fp32" : "bf16"; });

}  // namespace
}  // namespace mezzo::test

// Decoding on a card against the reference, also where more query heads read a key head than a block serves.
#include "cuda_operands.h"
#include "decoding_cases.h"

namespace mezzo::test {
namespace {

using CudaDecoding = CudaTest;

TEST_P(CudaDecoding, AttentionOverTheCache) {
  const PackedBatch packed = decoding_batch();
  for (const DecodingCase& one : decoding_cases()) {
    SCOPED_TRACE(one.text());
    const std::int64_t width = one.kv_heads * one.head_dim;
    const std::int64_t own_rows = decoding_rows * decoding_new_tokens;
    const Operand cosines(0, 300, one.rope_dims / 2, 7, 0), sines(0, 300, one.rope_dims / 2, 8, 0);
    const Operand q = operand(decoding_probes, decoding_rows, one.heads * one.head_dim, 1),
                  k = operand(decoding_probes, decoding_rows, width, 2),
                  v = operand(decoding_probes, decoding_rows, width, 3),
                  prompt_k =
                      operand(one.shared_prompts ? 0 : decoding_probes, decoding_prompt_rows, width, 20),
                  prompt_v = operand(decoding_probes, decoding_prompt_rows, width, 21),
                  own_k = operand(decoding_probes, own_rows, width, 22),
                  own_v = operand(decoding_probes, own_rows, width, 23);
    const ProbeTable probes = table(decoding_probes);
    const Placed device_q = place(q, decoding_probes), device_k = place(k, decoding_probes),
                 device_v = place(v, decoding_probes), device_prompt_k = place(prompt_k, decoding_probes),
                 device_prompt_v = place(prompt_v, decoding_probes),
                 device_own_k = place(own_k, decoding_probes), device_own_v = place(own_v, decoding_probes);
    Operand expected(decoding_probes, decoding_rows, one.heads * one.head_dim, 9);
    const Placed out = room(expected, decoding_probes);
    const Placed device_cosines(*cuda, cosines, 1, DType::f32), device_sines(*cuda, sines, 1, DType::f32);
    const Rope rope{one.style, one.rope_dims, cosines.view, sines.view};
    const Rope device_rope{one.style, one.rope_dims, device_cosines.view, device_sines.view};
    DeviceBatch batch, host_batch;
    cuda->upload(packed, batch);
    reference->upload(packed, host_batch);
    const bool turned = one.rope_dims > 0;
    cuda->decode_attention(probes, batch, one.shape(), turned ? &device_rope : nullptr, device_q.view,
                           device_k.view, device_v.view,
                           {.prompts = {device_prompt_k.view, device_prompt_v.view},
                            .own = {device_own_k.view, device_own_v.view},
                            .new_tokens = decoding_new_tokens},
                           out.view);
    reference->decode_attention(probes, host_batch, one.shape(), turned ? &rope : nullptr, q.view, k.view,
                                v.view,
                                {.prompts = {prompt_k.view, prompt_v.view},
                                 .own = {own_k.view, own_v.view},
                                 .new_tokens = decoding_new_tokens},
                                expected.view);
    const Operand got = out.host();
    const Operand stored_k = device_own_k.host(), stored_v = device_own_v.host();
    // As Cuda.AttentionWithRope.
    const double allowed = tolerance(64 * u * std::sqrt(double(one.head_dim)), 4.0);
    for (std::int64_t p = 0; p < decoding_probes; ++p) {
      for (std::int64_t t = 0; t < decoding_rows; ++t) {
        for (std::int64_t d = 0; d < got.view.cols; ++d) {
          if (decodes(packed, p, t)) {
            ASSERT_NEAR(got.at(p, t, d), expected.at(p, t, d), allowed) << p << " " << t << " " << d;
          } else {
            ASSERT_EQ(got.at(p, t, d), 0.0f);
          }
        }
      }
    }
    expect_near(stored_k, own_k, decoding_probes, tolerance(8 * u, 2.0));
    expect_near(stored_v, own_v, decoding_probes, 0.0);
  }
}

INSTANTIATE_TEST_SUITE_P(, CudaDecoding, ::testing::Bool(),
                         [](const auto& of) { return std::string(of.param ? "fp32" : "bf16"); });

}  // namespace
}  // namespace mezzo::test

// Decoding on the cpu backend against the reference: attention over the cache, what it stores there, and the
// choice of tokens.
#include <gtest/gtest.h>

#include "decoding_cases.h"

namespace mezzo::test {
namespace {

struct Cache {
  Cache(const DecodingCase& of, std::uint32_t seed)
      : prompt_k(of.shared_prompts ? 0 : decoding_probes, decoding_prompt_rows, of.kv_heads * of.head_dim,
                 seed),
        prompt_v(decoding_probes, decoding_prompt_rows, of.kv_heads * of.head_dim, seed + 1),
        own_k(decoding_probes, decoding_rows * decoding_new_tokens, of.kv_heads * of.head_dim, seed + 2),
        own_v(decoding_probes, decoding_rows * decoding_new_tokens, of.kv_heads * of.head_dim, seed + 3) {}
  LayerCache view() const {
    return {.prompts = {prompt_k.view, prompt_v.view},
            .own = {own_k.view, own_v.view},
            .new_tokens = decoding_new_tokens};
  }
  Operand prompt_k, prompt_v, own_k, own_v;
};

TEST(Decoding, AttentionOverTheCache) {
  const auto cpu = make_backend({.device = DeviceKind::cpu, .threads = 2});
  const auto reference = make_backend({.device = DeviceKind::reference});
  const PackedBatch packed = decoding_batch();
  ProbeTable table;
  const std::vector<Probe> probes(decoding_probes);
  cpu->upload(probes, NoiseKind::gaussian, table);
  for (const DecodingCase& one : decoding_cases()) {
    SCOPED_TRACE(one.text());
    const Workload workload{.largest = {.tokens = decoding_rows, .longest = 300},
                            .probes = decoding_probes,
                            .products = {},
                            .attention = one.shape()};
    cpu->prepare(workload);
    const Operand cosines(0, 300, one.rope_dims / 2, 7, 0), sines(0, 300, one.rope_dims / 2, 8, 0);
    const Rope rope{one.style, one.rope_dims, cosines.view, sines.view};
    std::vector<Operand> outs;
    std::vector<Cache> caches;
    for (Backend* const backend : {cpu.get(), reference.get()}) {
      DeviceBatch batch;
      backend->upload(packed, batch);
      const Operand q(decoding_probes, decoding_rows, one.heads * one.head_dim, 1),
          k(decoding_probes, decoding_rows, one.kv_heads * one.head_dim, 2),
          v(decoding_probes, decoding_rows, one.kv_heads * one.head_dim, 3);
      outs.emplace_back(decoding_probes, decoding_rows, one.heads * one.head_dim, 9);
      caches.emplace_back(one, 20);
      backend->decode_attention(table, batch, one.shape(), one.rope_dims > 0 ? &rope : nullptr, q.view,
                                k.view, v.view, caches.back().view(), outs.back().view);
    }
    for (std::int64_t p = 0; p < decoding_probes; ++p) {
      for (std::int64_t t = 0; t < decoding_rows; ++t) {
        for (std::int64_t d = 0; d < outs[0].view.cols; ++d) {
          ASSERT_TRUE(std::isfinite(outs[0].at(p, t, d)));
          if (decodes(packed, p, t)) {
            ASSERT_NEAR(outs[0].at(p, t, d), outs[1].at(p, t, d), 2e-6) << p << " " << t << " " << d;
          }
        }
      }
    }
    expect_near(caches[0].own_k, caches[1].own_k, decoding_probes, 3e-7);
    expect_near(caches[0].own_v, caches[1].own_v, decoding_probes, 0.0);
  }
}

TEST(Decoding, RowsBeyondTheCacheAreRefused) {
  const DecodingCase one{2, 1, 8};
  for (const DeviceKind kind : {DeviceKind::cpu, DeviceKind::reference}) {
    const auto backend = make_backend({.device = kind, .threads = 1});
    ProbeTable table;
    const std::vector<Probe> probes(decoding_probes);
    backend->upload(probes, NoiseKind::gaussian, table);
    const Operand q(decoding_probes, decoding_rows, 16, 1), k(decoding_probes, decoding_rows, 8, 2),
        v(decoding_probes, decoding_rows, 8, 3), out(decoding_probes, decoding_rows, 16, 9);
    const Cache cache(one, 20);
    for (const int wrong : {0, 1, 2}) {
      PackedBatch packed = decoding_batch();
      if (wrong == 0) packed.cache_rows[3] = decoding_new_tokens;
      if (wrong == 1) packed.prompt_begins[0] = decoding_prompt_rows;
      if (wrong == 2) packed.prompt_lengths[1] = -1;
      DeviceBatch batch;
      backend->upload(packed, batch);
      EXPECT_THROW(backend->decode_attention(table, batch, one.shape(), nullptr, q.view, k.view, v.view,
                                             cache.view(), out.view),
                   DeviceError)
          << wrong;
    }
  }
}

TEST(Decoding, NextTokensAreThoseOfTheReference) {
  const auto cpu = make_backend({.device = DeviceKind::cpu, .threads = 2});
  const auto reference = make_backend({.device = DeviceKind::reference});
  PackedBatch packed = decoding_batch();
  packed.target_rows = {0, 0, 1, 3, 5, 5};  // several of a row, and none of others
  ProbeTable table;
  const std::vector<Probe> probes(decoding_probes);
  cpu->upload(probes, NoiseKind::gaussian, table);
  RandomProduct head(33, {257}, {0}, true, 5);
  for (const float cap : {0.0f, 0.5f}) {
    head.product.score_cap = cap;
    for (const Sampling& sampling : {Sampling{}, Sampling{1.0f, 1.0f}, Sampling{0.7f, 0.5f}}) {
      Workload workload{.largest = {.tokens = decoding_rows,
                                    .loss_rows = decoding_rows,
                                    .targets = decoding_rows,
                                    .longest = 300,
                                    .cache = {.slots = decoding_rows, .new_tokens = decoding_new_tokens}},
                        .probes = decoding_probes,
                        .products = {{&head.product, Epilogue{}, true}},
                        .attention = {}};
      cpu->prepare(workload);
      const Operand x(decoding_probes, decoding_rows, 33, 4);
      std::vector<std::int32_t> chosen[2];
      for (const int i : {0, 1}) {
        Backend& backend = i == 0 ? *cpu : *reference;
        DeviceBatch batch;
        backend.upload(packed, batch);
        chosen[i].resize(static_cast<std::size_t>(decoding_probes * decoding_rows), -7);
        View out = dense(chosen[i].data(), DType::i32, 1, decoding_rows);
        out.probe_stride = decoding_rows;
        backend.next_tokens(table, batch, head.product, x.view, sampling, out);
      }
      EXPECT_EQ(chosen[0], chosen[1]) << sampling.temperature;
      if (sampling.temperature > 0.0f) {
        EXPECT_NE(chosen[0][0], chosen[0][1]);  // draws of their own
      }
    }
  }
}

}  // namespace
}  // namespace mezzo::test

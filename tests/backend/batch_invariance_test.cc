// A probe's numbers have the same bits whatever its company: the group, its place there, the number of
// threads, the addresses of its operands. Compared exactly, over all operations that mix probes or cut rows.
// Registered once for the processor's own BLAS kernels and once under OPENBLAS_CORETYPE=Haswell, whose
// kernels change a row's bits with the number of rows around it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>

#include "operands.h"

namespace mezzo::test {
namespace {

// Rows: odd, one block, several blocks; 320 -> 160 and 2 x 448 columns as in a small model.
constexpr std::int64_t in = 320;

struct Setting {
  std::vector<std::int64_t> group;  // which of the probes, in the order of the table
  int threads;
  std::int64_t shift;  // of every operand's address, in floats
};

/// Everything that one forward computes, for the probes of `setting.group`; entry i belongs to group[i].
class Forward {
 public:
  Forward(const Setting& setting, const std::vector<std::int32_t>& lengths, bool shared_x,
          bool unperturbed = false)
      : backend(make_backend({.device = DeviceKind::cpu, .threads = setting.threads})),
        qkv(in, {160, 80, 80}, {8, 0, 8}, true, 1),
        gate_up(in, {448, 448}, {4, 4}, false, 50),
        router(in, {5}, {2}, false, 150),
        experts(5),
        head(in, {2500}, {0}, false, 100) {
    const PackedBatch sequences = packed(lengths, 2500);
    backend->upload(sequences, batch);
    const std::int64_t tokens = batch.shape.tokens;
    const auto probes = static_cast<std::int64_t>(setting.group.size());
    std::vector<Probe> all = some_probes(8);
    std::vector<Probe> chosen;
    for (const std::int64_t p : setting.group) chosen.push_back(all[static_cast<std::size_t>(p)]);
    if (unperturbed) {
      for (Probe& probe : chosen) probe.epsilon = 0.0f;
    }
    backend->upload(chosen, NoiseKind::gaussian, table);
    const AttentionShape shape{5, 5, 32, 0.17f};
    Workload workload{.largest = batch.shape,
                      .probes = probes,
                      .products = {&qkv.product, &gate_up.product, &head.product, &router.product,
                                   experts.inputs[0], experts.outputs[0]},
                      .attention = shape};
    backend->prepare(workload);

    // Each probe's x is its own, wherever it stands.
    x = Operand(shared_x ? 0 : probes, tokens, in, 7, 3, setting.shift);
    if (!shared_x) {
      for (std::int64_t i = 0; i < probes; ++i) {
        const Operand own(0, tokens, in,
                          1000 + static_cast<std::uint32_t>(setting.group[static_cast<std::size_t>(i)]));
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t j = 0; j < in; ++j) x.at(i, t, j) = own.at(0, t, j);
        }
      }
    }
    const auto make = [&](std::int64_t rows, std::int64_t cols) {
      return Operand(probes, rows, cols, 0, 3, setting.shift);
    };
    const Operand norm_weight(0, 1, in, 8);
    const Norm norm{.kind = NormKind::rms, .weight = norm_weight.view, .bias = {}, .epsilon = 1e-6f};
    normed = make(tokens, in);
    Operand sum = make(tokens, in);
    backend->residual_norm(table, x.view, {{x.view, x.view}}, sum.view, norm, normed.view);

    // From x itself, so that a shared x meets per-probe outputs.
    q = make(tokens, 160);
    k = Operand(shared_x ? 0 : probes, tokens, 80, 0, 3, setting.shift);
    v = make(tokens, 80);
    backend->product(table, qkv.product, 0, x.view, {{q.view, k.view, v.view}}, {});
    gated = make(tokens, 448);
    backend->product(table, gate_up.product, 0, x.view, {{gated.view}},
                     {.activation = Activation::silu, .gated = true});
    attention_out = make(tokens, 160);
    backend->attention(table, batch, shape, nullptr, q.view, q.view, q.view, {}, attention_out.view);
    mix(make);
    scores = make(1, batch.shape.targets);
    backend->score(table, batch, head.product, x.view, scores.view);
  }

  std::vector<const Operand*> results() const {
    return {&normed, &q, &k, &v, &gated, &attention_out, &mixed, &scores};
  }

  /// A mixture of 5 experts, 2 of a row. Each probe's router sends other rows to them.
  void mix(const std::function<Operand(std::int64_t, std::int64_t)>& make) {
    const std::int64_t tokens = batch.shape.tokens;
    Operand logits = make(tokens, 5), sent = make(2 * tokens, in), middle = make(2 * tokens, 96),
            back = make(2 * tokens, in);
    RoutingStorage storage({.experts = 5, .chosen = 2}, table.count(), tokens);
    mixed = make(tokens, in);
    backend->product(table, router.product, 0, x.view, {{logits.view}}, {});
    backend->route(table, logits.view, storage.routing);
    backend->dispatch(table, storage.routing, x.view, sent.view);
    backend->expert_product(table, experts.inputs, storage.routing, sent.view, middle.view,
                            {.activation = Activation::silu, .gated = true});
    backend->expert_product(table, experts.outputs, storage.routing, middle.view, back.view, {});
    backend->combine(table, storage.routing, back.view, mixed.view);
  }

  struct Experts {
    explicit Experts(std::uint32_t count) {
      for (std::uint32_t e = 0; e < count; ++e) {
        storage.push_back(std::make_unique<RandomProduct>(in, std::vector<std::int64_t>{96, 96},
                                                          std::vector<std::int64_t>{4, e % 2 * 4}, false,
                                                          200 + 40 * e));
        inputs.push_back(&storage.back()->product);
        storage.push_back(std::make_unique<RandomProduct>(96, std::vector<std::int64_t>{in},
                                                          std::vector<std::int64_t>{4}, false, 220 + 40 * e));
        outputs.push_back(&storage.back()->product);
      }
    }
    std::vector<std::unique_ptr<RandomProduct>> storage;
    std::vector<const Product*> inputs, outputs;
  };

  std::unique_ptr<Backend> backend;
  DeviceBatch batch;
  ProbeTable table;
  RandomProduct qkv, gate_up, router;
  Experts experts;
  RandomProduct head;
  Operand x, normed, q, k, v, gated, attention_out, mixed, scores;
};

bool finite(const View& view, std::int64_t probes) {
  for (std::int64_t p = 0; p < (view.shared() ? 1 : probes); ++p) {
    for (std::int64_t i = 0; i < view.rows; ++i) {
      const float* row = view.as<float>() + p * view.probe_stride + i * view.row_stride;
      if (!std::all_of(row, row + view.cols, [](float x) { return std::isfinite(x); })) return false;
    }
  }
  return true;
}

constexpr const char* names[] = {"norm", "q", "k", "v", "gated", "attention", "mixture", "score"};

TEST(BatchInvariance, ProbeHasTheSameBitsInAnyGroup) {
  for (const std::vector<std::int32_t>& lengths :
       {std::vector<std::int32_t>{1}, {15}, {31, 2}, {16, 257, 40}}) {
    for (const bool shared_x : {false, true}) {
      const Forward together({{0, 1, 2, 3, 4}, 2, 0}, lengths, shared_x);
      for (std::size_t r = 0; r < together.results().size(); ++r) {
        EXPECT_TRUE(finite(together.results()[r]->view, 5)) << names[r];  // NaN would equal NaN below
      }
      for (const Setting& setting :
           {Setting{{0}, 1, 0}, Setting{{3}, 2, 1}, Setting{{4, 1}, 1, 3}, Setting{{2, 0}, 2, 0},
            Setting{{4, 3, 2, 1, 0}, 1, 5}, Setting{{1, 4, 0, 3, 2}, 2, 7}}) {
        const Forward apart(setting, lengths, shared_x);
        for (std::size_t r = 0; r < together.results().size(); ++r) {
          const View& one = together.results()[r]->view;
          const View& other = apart.results()[r]->view;
          for (std::size_t i = 0; i < setting.group.size(); ++i) {
            EXPECT_TRUE(same_bits(one, setting.group[i], other, static_cast<std::int64_t>(i)))
                << names[r] << " of probe " << setting.group[i] << " at place " << i << " of "
                << setting.group.size() << ", " << setting.threads << " threads, " << lengths.size()
                << " sequences, shared x " << shared_x;
          }
        }
      }
    }
  }
}

/// Probes differ among themselves: otherwise the test above would hold for a backend that mixes them up.
TEST(BatchInvariance, ProbesDiffer) {
  const Forward together({{0, 1, 3, 4}, 2, 0}, {16, 257, 40}, true);
  for (std::int64_t p = 1; p < 4; ++p) {
    EXPECT_FALSE(same_bits(together.q.view, 0, together.q.view, p)) << p;
    EXPECT_FALSE(same_bits(together.gated.view, 0, together.gated.view, p)) << p;
    EXPECT_FALSE(same_bits(together.mixed.view, 0, together.mixed.view, p)) << p;
  }
}

/// x shared by all probes gives what each would get from its own copy of it.
TEST(BatchInvariance, SharedInputsGiveTheSameBits) {
  RandomProduct random(in, {160, 80, 80}, {8, 0, 8}, true, 1);
  for (const std::int64_t rows : {1, 33, 257, 500}) {
    const auto backend = make_backend({.device = DeviceKind::cpu, .threads = 2});
    backend->prepare({.largest = {.tokens = rows, .sequences = 1, .loss_rows = 1, .targets = 1, .longest = 1},
                      .probes = 3,
                      .products = {&random.product},
                      .attention = {}});
    ProbeTable table;
    backend->upload(some_probes(3), NoiseKind::rademacher, table);
    const Operand shared(0, rows, in, 2);
    Operand own(3, rows, in, 2);
    for (std::int64_t p = 0; p < 3; ++p) {
      for (std::int64_t t = 0; t < rows; ++t) {
        for (std::int64_t j = 0; j < in; ++j) own.at(p, t, j) = shared.at(0, t, j);
      }
    }
    Operand a[] = {{3, rows, 160, 0}, {0, rows, 80, 0}, {3, rows, 80, 0}};
    Operand b[] = {{3, rows, 160, 0}, {3, rows, 80, 0}, {3, rows, 80, 0}};
    backend->product(table, random.product, 0, shared.view, {{a[0].view, a[1].view, a[2].view}}, {});
    backend->product(table, random.product, 0, own.view, {{b[0].view, b[1].view, b[2].view}}, {});
    for (int part = 0; part < 3; ++part) {
      for (std::int64_t p = 0; p < 3; ++p)
        EXPECT_TRUE(same_bits(a[part].view, p, b[part].view, p)) << part << p;
    }
  }
}

/// epsilon = 0 is the unperturbed model: whatever the seed, in company of perturbed probes or not.
TEST(BatchInvariance, NoEpsilonIsNoPerturbation) {
  const Forward none({{0, 1, 2}, 2, 0}, {31, 33}, true, true);
  for (const std::size_t r : {1, 3, 4}) {  // q, v, gated
    const View& view = none.results()[r]->view;
    EXPECT_TRUE(same_bits(view, 0, view, 1) && same_bits(view, 0, view, 2)) << names[r];
  }
  const Forward mixed({{0, 1, 2}, 2, 0}, {31, 33}, true);  // probe 2 has epsilon 0
  for (std::size_t r = 0; r < none.results().size(); ++r) {
    EXPECT_TRUE(same_bits(none.results()[r]->view, 0, mixed.results()[r]->view, 2)) << names[r];
  }
}

/// What products of three parts and of gate | up give for rows of one probe, some of whose rows are `apart`.
struct RowsOfProducts {
  RowsOfProducts(std::span<const std::int32_t> apart, const View& x)
      : q(1, x.rows, 160, 0), k(1, x.rows, 80, 0), v(1, x.rows, 80, 0), gated(1, x.rows, 448, 0) {
    RandomProduct qkv(in, {160, 80, 80}, {8, 0, 8}, true, 1);
    RandomProduct gate_up(in, {448, 448}, {4, 4}, false, 50);
    const auto backend = make_backend({.device = DeviceKind::cpu, .threads = 1});
    backend->prepare(
        {.largest = {.tokens = x.rows, .sequences = 1, .loss_rows = 1, .targets = 1, .longest = 1},
         .probes = 1,
         .products = {&qkv.product, &gate_up.product},
         .attention = {}});
    ProbeTable table;
    backend->upload(some_probes(1), NoiseKind::gaussian, table);
    backend->keep_apart(apart);
    backend->product(table, qkv.product, 0, x, {{q.view, k.view, v.view}}, {});
    backend->product(table, gate_up.product, 0, x, {{gated.view}},
                     {.activation = Activation::silu, .gated = true});
  }
  /// The same bits as rows [begin, begin + rows) of `other`.
  bool equals(const RowsOfProducts& other, std::int64_t begin) const {
    const auto same = [&](const Operand& one, const Operand& whole) {
      return same_bits(one.view, 0, whole.view.row_range(begin, one.view.rows), 0);
    };
    return same(q, other.q) && same(k, other.k) && same(v, other.v) && same(gated, other.gated);
  }
  Operand q, k, v, gated;
};

/// Rows [begin, begin + rows) of x alone: where they lie decides nothing.
Operand copy_of(const Operand& x, std::int64_t begin, std::int64_t rows) {
  Operand copy(1, rows, in, 7);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < in; ++j) copy.at(0, i, j) = x.at(0, begin + i, j);
  }
  return copy;
}

TEST(BatchInvariance, RowsThatAreKeptApartAreAsAlone) {
  const std::vector<std::int32_t> offsets = {0, 7, 40, 41, 56, 121, 123};
  const Operand x(1, offsets.back(), in, 3);
  const RowsOfProducts together(offsets, x.view);
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const std::int32_t rows = offsets[s + 1] - offsets[s];
    const Operand own = copy_of(x, offsets[s], rows);
    const std::vector<std::int32_t> alone = {0, rows};
    EXPECT_TRUE(RowsOfProducts(alone, own.view).equals(together, offsets[s])) << s;
  }
  // Of another number of rows, as those of which each ends a sequence, each is alone.
  const std::vector<std::int32_t> others = {0, 50, 90};
  const RowsOfProducts each(others, x.view);
  for (const std::int64_t row : {0, 1, 31, 32, 122}) {
    const Operand own = copy_of(x, row, 1);
    EXPECT_TRUE(RowsOfProducts(std::vector<std::int32_t>{0, 1}, own.view).equals(each, row)) << row;
  }
}

/// With kernels whose bits depend on the rows around, rows that are not kept apart differ: otherwise the test
/// above would say nothing.
TEST(BatchInvariance, RowsInCompanyMayDiffer) {
  const char* const core = std::getenv("OPENBLAS_CORETYPE");
  if (core == nullptr || std::string(core) != "Haswell") GTEST_SKIP() << "only of these kernels it is known";
  const Operand x(1, 123, in, 3);
  const RowsOfProducts together({}, x.view);
  bool all_same = true;
  for (const std::int64_t row : {0, 1, 31, 32, 122}) {
    const Operand own = copy_of(x, row, 1);
    all_same = all_same && RowsOfProducts({}, own.view).equals(together, row);
  }
  EXPECT_FALSE(all_same);
}

}  // namespace
}  // namespace mezzo::test

#pragma once
// What tests of the cuda backend share: operands in device memory, and the backend beside the reference. Of
// what an output in bf16 is off, `tolerance` says one rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "operands.h"

namespace mezzo::test {

inline constexpr double u = 0x1p-24;

/// An operand in device memory: rows and copies `stride` and `stride * rows` elements apart.
class Placed {
 public:
  Placed(Backend& backend, const Operand& host, std::int64_t probes, DType dtype, std::int64_t stride = 0,
         bool filled = true)
      : backend_(backend), probes_(host.view.shared() ? 1 : probes) {
    view = host.view;
    view.dtype = dtype;
    const std::int64_t unit = 16 / std::int64_t(size_of(dtype));
    view.row_stride = std::max(stride, (view.cols + unit - 1) / unit * unit);
    if (!host.view.shared()) view.probe_stride = view.rows * view.row_stride;
    const auto count = static_cast<std::size_t>(probes_ * view.rows * view.row_stride);
    buffer_ = backend.allocate(count * size_of(dtype));
    view.data = buffer_.data();
    // NaN everywhere, so that what is not written shows.
    const std::vector<float> nan(count, std::numeric_limits<float>::quiet_NaN());
    backend.load(dense(view.data, dtype, 1, std::int64_t(count)), DType::f32, nan.data(), false);
    for (std::int64_t p = 0; filled && p < probes_; ++p) {
      std::vector<float> values;
      for (std::int64_t i = 0; i < view.rows; ++i) {
        for (std::int64_t j = 0; j < view.cols; ++j) values.push_back(host.at(p, i, j));
      }
      View copy = view;
      copy.data = static_cast<std::byte*>(view.data) + std::size_t(p * view.probe_stride) * size_of(dtype);
      copy.probe_stride = 0;
      backend.load(copy, DType::f32, values.data(), false);
    }
  }

  Operand host() const {
    Operand result(view.shared() ? 0 : probes_, view.rows, view.cols, 0);
    std::vector<float> values(static_cast<std::size_t>(probes_ * view.rows * view.cols));
    backend_.read(values, view, probes_);
    std::size_t next = 0;
    for (std::int64_t p = 0; p < probes_; ++p) {
      for (std::int64_t i = 0; i < view.rows; ++i) {
        for (std::int64_t j = 0; j < view.cols; ++j) result.at(p, i, j) = values[next++];
      }
    }
    return result;
  }

  View view;

 private:
  Backend& backend_;
  std::int64_t probes_;
  Buffer buffer_;
};

/// i32 indices in device memory.
struct Indices {
  Indices(Backend& backend, const std::vector<std::int32_t>& values) {
    PackedBatch carrier;  // the one way in for integers
    carrier.tokens = values;
    carrier.offsets = {0, static_cast<std::int32_t>(values.size())};
    backend.upload(carrier, batch);
  }
  View view() const { return batch.tokens; }
  DeviceBatch batch;
};

/// Sequences on a card and on the reference, and some of their rows: every `step`-th and the last.
struct Sequences {
  Sequences(Backend& cuda, Backend& reference, const std::vector<std::int32_t>& lengths, std::int32_t step)
      : packed_batch(packed(lengths, 50)),
        tokens(std::ssize(packed_batch.tokens)),
        rows(some(tokens, step)),
        index(cuda, rows) {
    cuda.upload(packed_batch, on_card);
    reference.upload(packed_batch, on_reference);
  }
  View host_rows() { return dense(rows.data(), DType::i32, 1, std::ssize(rows)); }

  PackedBatch packed_batch;
  DeviceBatch on_card, on_reference;
  std::int64_t tokens;
  std::vector<std::int32_t> rows;
  Indices index;

 private:
  static std::vector<std::int32_t> some(std::int64_t tokens, std::int32_t step) {
    std::vector<std::int32_t> rows;
    for (std::int32_t t = 0; t < tokens; ++t) {
      if (t % step == 0 || t + 1 == tokens) rows.push_back(t);
    }
    return rows;
  }
};

class CudaTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string reason;
    if (!cuda_available(&reason)) GTEST_SKIP() << reason;
    reference = make_backend({.device = DeviceKind::reference});
    cuda = make_backend({.device = DeviceKind::cuda, .fp32 = GetParam()});
    dtype = cuda->activation_dtype();
  }

  /// Values as the backend sees them: rounded to bf16 there.
  Operand operand(std::int64_t probes, std::int64_t rows, std::int64_t cols, std::uint32_t seed) const {
    Operand result(probes, rows, cols, seed);
    for (std::int64_t p = 0; p < std::max<std::int64_t>(probes, 1); ++p) {
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < cols && dtype == DType::bf16; ++j) {
          result.at(p, i, j) = bf16_to_float(float_to_bf16(result.at(p, i, j)));
        }
      }
    }
    return result;
  }
  Placed place(const Operand& host, std::int64_t probes, std::int64_t stride = 0) {
    return Placed(*cuda, host, probes, dtype, stride);
  }
  Placed place_f32(const Operand& host, std::int64_t probes) {
    return Placed(*cuda, host, probes, DType::f32);
  }
  Placed room(const Operand& like, std::int64_t probes, DType type) {
    return Placed(*cuda, like, probes, type, 0, false);
  }
  Placed room(const Operand& like, std::int64_t probes) { return room(like, probes, dtype); }

  /// Of values up to `size`: one rounding to the output's type on top of `fp32`.
  double tolerance(double fp32, double size) const {
    return fp32 + (dtype == DType::bf16 ? 0x1p-8 * size : 0.0);
  }

  ProbeTable table(const std::vector<Probe>& probes, NoiseKind noise = NoiseKind::gaussian) {
    ProbeTable result;
    cuda->upload(probes, noise, result);
    return result;
  }
  ProbeTable table(std::int64_t probes, NoiseKind noise = NoiseKind::gaussian) {
    return table(some_probes(probes), noise);
  }
  void prepare(std::int64_t rows, std::int64_t probes, std::vector<PlannedProduct> products) {
    cuda->prepare(
        {.largest =
             {.tokens = rows, .sequences = rows, .loss_rows = rows, .targets = 2 * rows, .longest = rows},
         .probes = probes,
         .products = std::move(products),
         .attention = {}});
  }

  std::unique_ptr<Backend> reference, cuda;
  DType dtype = DType::f32;
};

/// A product whose weight, bias and factors also lie on the device.
struct DeviceProduct {
  DeviceProduct(Backend& backend, RandomProduct& host, DType dtype, bool tail_room = true) {
    for (Operand* operand : {&host.weight, &host.bias}) {
      for (std::int64_t i = 0; i < operand->view.rows && dtype == DType::bf16; ++i) {
        for (std::int64_t j = 0; j < operand->view.cols; ++j)
          operand->at(0, i, j) = bf16_to_float(float_to_bf16(operand->at(0, i, j)));
      }
    }
    product = host.product;
    const std::int64_t in = host.product.in();
    product.weight = backend.place_weight(host.product.out(), in, tail_room ? host.product.tail_ranks() : 0);
    storage.emplace_back(backend, host.weight, 1, dtype, product.weight.codes.row_stride);
    product.weight.codes = storage.back().view;
    product.weight.stored_rows = 0;
    if (product.bias) {
      storage.emplace_back(backend, host.bias, 1, dtype);
      product.bias = storage.back().view;
    }
    std::size_t next = 0;
    for (ProductPart& part : product.parts) {
      auto* const tail = std::get_if<LowRankTail>(&part.perturbation);
      if (tail == nullptr || tail->outer) continue;
      tail->a = factor(backend, host.factors[next++]);
      tail->b = factor(backend, host.factors[next++]);
    }
  }
  View factor(Backend& backend, const Operand& host) {
    factors.push_back(backend.allocate(std::size_t(host.view.rows * host.view.cols) * sizeof(float)));
    const View view = dense(factors.back().data(), DType::f32, host.view.rows, host.view.cols);
    backend.load(view, DType::f32, host.view.data, false);
    return view;
  }

  Product product;
  std::vector<Placed> storage;
  std::vector<Buffer> factors;
};

}  // namespace mezzo::test

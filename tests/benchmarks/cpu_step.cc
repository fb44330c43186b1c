// Where a step's forwards spend their time on the cpu backend, against their GEMM bound: the base products of
// all probes, unshared, each one multithreaded OpenBLAS call over all rows. Shapes of llama12m (8 layers,
// hidden 320, 10 heads of 32 over 5, intermediate 896, 8192 words), LoRA r 8 on q and v, 8 directions
// two-sided. GEMM bound and backend take turns; medians are shown.
//   cpu_step [threads = 2] [repetitions = 9] [sequences = 32] [tokens a sequence = 15]
#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "mezzo/backend/devices.h"

namespace mezzo {
namespace {

constexpr std::int64_t layers = 8, hidden = 320, heads = 10, kv_heads = 5, head_dim = 32, intermediate = 896;
constexpr std::int64_t vocabulary = 8192, rank = 8, directions = 8;

/// Wall and processor seconds.
struct Time {
  double wall = 0.0;
  double processor = 0.0;
};
Time now() {
  timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  const auto wall = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration<double>(wall).count(), double(cpu.tv_sec) + 1e-9 * double(cpu.tv_nsec)};
}

/// Times by name, in the order of their first appearance, one entry a repetition.
class Stopwatch {
 public:
  template <typename F>
  void time(const std::string& name, F f) {
    const Time begin = now();
    f();
    const Time end = now();
    if (!totals_.contains(name)) order_.push_back(name);
    totals_[name].wall += end.wall - begin.wall;
    totals_[name].processor += end.processor - begin.processor;
  }
  void finish_repetition() {
    for (auto& [name, total] : totals_) {
      walls_[name].push_back(total.wall);
      processors_[name].push_back(total.processor);
      total = {};
    }
  }
  const std::vector<std::string>& names() const { return order_; }
  double wall(const std::string& name) const { return median(walls_.at(name)); }
  double processor(const std::string& name) const { return median(processors_.at(name)); }

 private:
  static double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    return values[values.size() / 2];
  }
  std::vector<std::string> order_;
  std::map<std::string, Time> totals_;
  std::map<std::string, std::vector<double>> walls_, processors_;
};

class Step {
 public:
  Step(int threads, std::int64_t sequences, std::int64_t length, std::int64_t group)
      : threads_(threads),
        group_(group),
        backend_(make_backend({.device = DeviceKind::cpu, .threads = threads})) {
    PackedBatch batch;
    batch.offsets.push_back(0);
    std::mt19937 random(1);
    for (std::int64_t s = 0; s < sequences; ++s) {
      // Half to one and a half of the length, paired so that the total is exact.
      const auto spread = static_cast<std::int32_t>(length / 2 - (s / 2 % (length / 2 + 1)));
      const auto tokens = static_cast<std::int32_t>(length) + (s + 1 == sequences && sequences % 2 ? 0
                                                               : s % 2                             ? spread
                                                                                                   : -spread);
      for (std::int32_t i = 0; i < tokens; ++i) {
        batch.tokens.push_back(static_cast<std::int32_t>(random() % vocabulary));
        batch.positions.push_back(i);
      }
      batch.offsets.push_back(static_cast<std::int32_t>(batch.tokens.size()));
      batch.loss_rows.push_back(static_cast<std::int32_t>(batch.tokens.size()) - 1);
      for (const std::int32_t word : {17, 4711}) {
        batch.target_rows.push_back(static_cast<std::int32_t>(s));
        batch.target_tokens.push_back(word);
      }
    }
    backend_->upload(batch, batch_);
    for (std::uint32_t p = 0; p < 2 * directions; ++p) {
      probes_.push_back({.seed = p / 2 + 100, .direction = p / 2, .epsilon = p % 2 == 0 ? 1e-2f : -1e-2f});
    }

    qkv_ = product("qkv", hidden, {heads * head_dim, kv_heads * head_dim, kv_heads * head_dim},
                   {true, false, true});
    output_ = product("output", heads * head_dim, {hidden}, {false});
    gate_up_ = product("gate up", hidden, {intermediate, intermediate}, {false, false});
    down_ = product("down", intermediate, {hidden}, {false});
    head_ = product("head", hidden, {vocabulary}, {false});
    norm_ = {.kind = NormKind::rms, .weight = random_matrix(1, hidden), .bias = {}, .epsilon = 1e-6f};
    rope_ = {.style = RopeStyle::half_split,
             .dims = head_dim,
             .cosines = random_matrix(1024, head_dim / 2),
             .sines = random_matrix(1024, head_dim / 2)};
    shape_ = {heads, kv_heads, head_dim, 1.0f / std::sqrt(float(head_dim))};
    backend_->prepare({.largest = batch_.shape,
                       .probes = group,
                       .products = {&qkv_, &output_, &gate_up_, &down_, &head_},
                       .attention = shape_});
    const std::int64_t tokens = batch_.shape.tokens, loss_rows = batch_.shape.loss_rows;
    embedded_ = activation(0, tokens, hidden);
    h_ = activation(group, tokens, hidden);
    x_shared_ = activation(0, tokens, hidden);
    x_ = activation(group, tokens, hidden);
    q_ = activation(group, tokens, heads * head_dim);
    k_ = activation(group, tokens, kv_heads * head_dim);
    k_shared_ = activation(0, tokens, kv_heads * head_dim);
    v_ = activation(group, tokens, kv_heads * head_dim);
    attended_ = activation(group, tokens, heads * head_dim);
    delta_ = activation(group, tokens, hidden);
    inner_ = activation(group, tokens, intermediate);
    read_ = activation(group, loss_rows, hidden);
    scores_ = activation(group, 1, batch_.shape.targets);
  }

  std::int64_t tokens() const { return batch_.shape.tokens; }

  /// The forwards of all probes, in groups.
  void forward(Stopwatch& watch) {
    for (std::int64_t first = 0; first < 2 * directions; first += group_) {
      backend_->upload(
          std::span(probes_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(group_)),
          NoiseKind::gaussian, table_);
      group(watch);
    }
  }

  /// The base products of all probes, each one call over all rows, on all threads.
  void gemm_bound(Stopwatch& watch) {
    openblas_set_num_threads(threads_);
    const std::int64_t rows = 2 * directions * tokens();
    gemm_bound_x_.resize(static_cast<std::size_t>(rows * intermediate), 0.5f);
    gemm_bound_y_.resize(static_cast<std::size_t>(rows * 2 * intermediate));
    for (const Product* product : {&qkv_, &output_, &gate_up_, &down_}) {
      watch.time("GEMM bound " + product->name, [&] {
        for (std::int64_t layer = 0; layer < layers; ++layer) gemm_bound_call(*product, rows);
      });
    }
    openblas_set_num_threads(1);
  }

 private:
  void gemm_bound_call(const Product& product, std::int64_t rows) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blasint(rows), blasint(product.out()),
                blasint(product.in()), 1.0f, gemm_bound_x_.data(), blasint(product.in()),
                product.weight.codes.as<float>(), blasint(product.in()), 0.0f, gemm_bound_y_.data(),
                blasint(product.out()));
  }

  void group(Stopwatch& watch) {
    watch.time("embed", [&] { backend_->embed(table_, batch_, head_.weight.codes, {}, 0, embedded_); });
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const bool first = layer == 0;
      const View x = first ? x_shared_ : x_;
      const View k = first ? k_shared_ : k_;
      watch.time("norm", [&] {
        if (first) {
          backend_->residual_norm(table_, embedded_, {}, {}, norm_, x);
        } else {
          backend_->residual_norm(table_, h_, {{delta_}}, h_, norm_, x);
        }
      });
      watch.time("product qkv", [&] { backend_->product(table_, qkv_, 0, x, {{q_, k, v_}}, {}); });
      watch.time("rotate", [&] {
        backend_->rotate(table_, batch_, rope_, {}, head_dim, q_);
        backend_->rotate(table_, batch_, rope_, {}, head_dim, k);
      });
      watch.time("attention",
                 [&] { backend_->attention(table_, batch_, shape_, nullptr, q_, k, v_, {}, attended_); });
      watch.time("product output", [&] { backend_->product(table_, output_, 0, attended_, {{delta_}}, {}); });
      watch.time("norm",
                 [&] { backend_->residual_norm(table_, first ? embedded_ : h_, {{delta_}}, h_, norm_, x_); });
      watch.time("product gate up", [&] {
        backend_->product(table_, gate_up_, 0, x_, {{inner_}},
                          {.activation = Activation::silu, .gated = true});
      });
      watch.time("product down", [&] { backend_->product(table_, down_, 0, inner_, {{delta_}}, {}); });
    }
    watch.time("norm", [&] { backend_->residual_norm(table_, h_, {{delta_}}, {}, norm_, x_); });
    watch.time("gather", [&] { backend_->gather(table_, x_, batch_.loss_rows, read_); });
    watch.time("score", [&] { backend_->score(table_, batch_, head_, read_, scores_); });
  }

  View random_matrix(std::int64_t rows, std::int64_t cols) {
    buffers_.push_back(backend_->allocate(static_cast<std::size_t>(rows * cols) * sizeof(float)));
    auto* values = static_cast<float*>(buffers_.back().data());
    std::mt19937 random(static_cast<std::uint32_t>(buffers_.size()));
    std::normal_distribution<float> normal(0.0f, 0.05f);
    for (std::int64_t i = 0; i < rows * cols; ++i) values[i] = normal(random);
    return dense(values, DType::f32, rows, cols);
  }

  Product product(const std::string& name, std::int64_t in, const std::vector<std::int64_t>& rows,
                  const std::vector<bool>& perturbed) {
    Product product{.name = name, .weight = {}, .bias = {}, .parts = {}};
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      ProductPart part{.name = name, .row_begin = begin, .rows = rows[i]};
      if (perturbed[i]) {
        const auto id = static_cast<std::uint32_t>(2 * i);
        part.perturbation = LowRankTail{.a = random_matrix(rank, in),
                                        .b = random_matrix(rows[i], rank),
                                        .a_noise = id,
                                        .b_noise = id + 1,
                                        .scaling = 2.0f};
      }
      product.parts.push_back(part);
      begin += rows[i];
    }
    product.weight.codes = random_matrix(begin, in);
    return product;
  }

  View activation(std::int64_t probes, std::int64_t rows, std::int64_t cols) {
    View view = random_matrix(std::max<std::int64_t>(probes, 1) * rows, cols);
    view.rows = rows;
    view.probe_stride = probes == 0 ? 0 : rows * cols;
    return view;
  }

  int threads_;
  std::int64_t group_;
  std::unique_ptr<Backend> backend_;
  std::vector<Buffer> buffers_;
  DeviceBatch batch_;
  ProbeTable table_;
  std::vector<Probe> probes_;
  Product qkv_, output_, gate_up_, down_, head_;
  Norm norm_;
  Rope rope_;
  AttentionShape shape_;
  View embedded_, h_, x_shared_, x_, q_, k_, k_shared_, v_, attended_, delta_, inner_, read_, scores_;
  std::vector<float> gemm_bound_x_, gemm_bound_y_;
};

/// Sum of the medians of the names that begin with `prefix`.
template <typename Of>
double sum(const Stopwatch& watch, const std::string& prefix, Of of) {
  double total = 0.0;
  for (const std::string& name : watch.names()) {
    if (name.starts_with(prefix)) total += (watch.*of)(name);
  }
  return total;
}

void run(int threads, int repetitions, std::int64_t sequences, std::int64_t length) {
  Step batched(threads, sequences, length, 2 * directions);
  Step single(threads, sequences, length, 1);
  Stopwatch gemm_bound, together, apart;
  for (int i = -1; i < repetitions; ++i) {
    if (i == 0) gemm_bound = together = apart = {};  // the first round warms up
    batched.gemm_bound(gemm_bound);
    batched.forward(together);
    single.forward(apart);
    gemm_bound.finish_repetition();
    together.finish_repetition();
    apart.finish_repetition();
  }
  const double gemm_bound_wall = sum(gemm_bound, "", &Stopwatch::wall);
  const double gemm_bound_processor = sum(gemm_bound, "", &Stopwatch::processor);
  fmt::print("{} probes of {} tokens, {} thread(s), {}\n", 2 * directions, batched.tokens(), threads,
             openblas_get_corename());
  fmt::print("{:24} {:>10} {:>9} {:>12} {:>9}\n", "", "wall ms", "/ bound", "processor ms", "/ bound");
  const auto line = [&](const std::string& name, double wall, double processor) {
    fmt::print("{:24} {:10.2f} {:9.3f} {:12.2f} {:9.3f}\n", name, wall * 1e3, wall / gemm_bound_wall,
               processor * 1e3, processor / gemm_bound_processor);
  };
  for (const Stopwatch* watch : {&gemm_bound, &together}) {
    for (const std::string& name : watch->names()) line(name, watch->wall(name), watch->processor(name));
  }
  line("all products", sum(together, "product", &Stopwatch::wall),
       sum(together, "product", &Stopwatch::processor));
  line("step, batched", sum(together, "", &Stopwatch::wall), sum(together, "", &Stopwatch::processor));
  line("step, one by one", sum(apart, "", &Stopwatch::wall), sum(apart, "", &Stopwatch::processor));
  fmt::print("one by one / batched: {:.2f}\n",
             sum(apart, "", &Stopwatch::wall) / sum(together, "", &Stopwatch::wall));
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) {
  const auto argument = [&](int i, int otherwise) { return i < argc ? std::stoi(argv[i]) : otherwise; };
  mezzo::run(argument(1, 2), argument(2, 9), argument(3, 32), argument(4, 15));
}

#include "cuda_gemm.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "kernels/cuda/rows.h"

namespace mezzo {
namespace {

constexpr int most_candidates = 48;

constexpr int timings = 3;                                  // of a candidate; the median counts
constexpr std::size_t cold_bytes = std::size_t{128} << 20;  // more than any card's cache

using Description = HandleOwner<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>;
using Layout = HandleOwner<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;
using Preference = HandleOwner<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>;
using Event = HandleOwner<cudaEvent_t, &cudaEventDestroy>;

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

bool has_bias(GemmEpilogue epilogue) {
  return epilogue == GemmEpilogue::bias || epilogue == GemmEpilogue::bias_gelu_tanh;
}

cublasLtEpilogue_t epilogue_of(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::none:
      break;
    case GemmEpilogue::bias:
      return CUBLASLT_EPILOGUE_BIAS;
    case GemmEpilogue::gelu_tanh:
      return CUBLASLT_EPILOGUE_GELU;  // the tanh form
    case GemmEpilogue::bias_gelu_tanh:
      return CUBLASLT_EPILOGUE_GELU_BIAS;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

const char* name_of(GemmEpilogue epilogue) {
  constexpr const char* names[] = {"", " bias", " gelu", " bias gelu"};
  return names[static_cast<int>(epilogue)];
}

std::string text_of(const GemmShape& shape) {
  return fmt::format("{}x{} {}>{}{}", shape.n, shape.k, name_of(shape.in), name_of(shape.out),
                     name_of(shape.epilogue));
}

std::string hex_of(const cublasLtMatmulAlgo_t& algorithm) {
  std::string hex;
  for (const std::uint64_t word : algorithm.data) hex += fmt::format("{:016x}", word);
  return hex;
}

std::optional<cublasLtMatmulAlgo_t> algorithm_from(const std::string& hex) {
  cublasLtMatmulAlgo_t algorithm{};
  constexpr std::size_t digits = 16;
  if (hex.size() != digits * std::size(algorithm.data)) return {};
  if (hex.find_first_not_of("0123456789abcdef") != std::string::npos) return {};
  for (std::size_t i = 0; i < std::size(algorithm.data); ++i)
    algorithm.data[i] = std::stoull(hex.substr(digits * i, digits), nullptr, 16);
  return algorithm;
}

/// fp32 products are fp32 throughout: no TF32.
Description describe(const GemmShape& shape, const void* bias) {
  cublasLtMatmulDesc_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Description description(raw);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    MEZZO_CUBLAS(cublasLtMatmulDescSetAttribute(raw, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (shape.epilogue != GemmEpilogue::none) set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(shape.epilogue));
  if (has_bias(shape.epilogue)) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  return description;
}

/// The library is column-major: a row-major matrix is its own transpose there, [cols, rows] with the row
/// stride between columns.
Layout layout(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
  cublasLtMatrixLayout_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatrixLayoutCreate(&raw, type_of(dtype), static_cast<std::uint64_t>(cols),
                                          static_cast<std::uint64_t>(rows), stride));
  return Layout(raw);
}

std::int64_t aligned_stride(std::int64_t cols, DType dtype) {
  const auto unit = static_cast<std::int64_t>(vector_bytes / size_of(dtype));
  return (cols + unit - 1) / unit * unit;
}

/// Where the operands of a search lie in its scratch; x is at 0, the weight behind it.
struct SearchLayout {
  std::int64_t rows;        // timed
  std::int64_t all_rows;    // of x and y: enough for the check, too
  std::int64_t check_rows;  // compared
  std::int64_t x_stride, y_stride;
  std::size_t weight, y, y_again, bias, differences, bytes;

  SearchLayout(const GemmShape& shape, std::int64_t timed_rows)
      : rows(timed_rows),
        all_rows(std::max<std::int64_t>(timed_rows, 1030)),
        check_rows(shape.n > 32768 ? 390 : 1030),  // vocabularies are wide
        x_stride(aligned_stride(shape.k, shape.in)),
        y_stride(aligned_stride(shape.n, shape.out)) {
    const std::size_t row_bytes = static_cast<std::size_t>(y_stride) * size_of(shape.out);
    weight = round_up(static_cast<std::size_t>(all_rows * x_stride) * size_of(shape.in));
    y = weight + round_up(static_cast<std::size_t>(shape.n * x_stride) * size_of(shape.in));
    y_again = y + round_up(static_cast<std::size_t>(all_rows) * row_bytes);
    bias = y_again + round_up(static_cast<std::size_t>(check_rows) * row_bytes);
    differences = bias + round_up(row_bytes);
    bytes = std::max(differences + 256, y + cold_bytes);
  }
};

/// Lines "key algorithm"; a line that is not one is left out, and costs no more than a new search.
std::map<std::string, std::string> read_store(const std::string& path) {
  std::map<std::string, std::string> entries;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t tab = line.find('\t');
    if (tab != std::string::npos) entries[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return entries;
}

/// Read, add, write beside and rename: of two processes that write at once the later one's file stays. A
/// store that cannot be written is left as it is: only the next process's time is lost.
void add_to_store(const std::string& path, const std::string& key, const std::string& value) {
  std::map<std::string, std::string> entries = read_store(path);
  entries[key] = value;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const std::string temporary = fmt::format("{}.{}", path, getpid());
  std::ofstream file(temporary);
  for (const auto& [name, text] : entries) file << name << '\t' << text << '\n';
  file.close();
  if (file) {
    std::filesystem::rename(temporary, path, error);
  } else {
    std::filesystem::remove(temporary, error);
  }
}

}  // namespace

/// Operands of one search.
struct Gemm::Search {
  const GemmShape& shape;
  SearchLayout sizes;
  std::byte* base;

  GemmOperands operands(std::int64_t first, std::int64_t rows, std::size_t y) const {
    return {.weight = base + sizes.weight,
            .weight_stride = sizes.x_stride,
            .x = base + static_cast<std::size_t>(first * sizes.x_stride) * size_of(shape.in),
            .x_stride = sizes.x_stride,
            .rows = rows,
            .y = base + y + static_cast<std::size_t>(first * sizes.y_stride) * size_of(shape.out),
            .y_stride = sizes.y_stride,
            .bias = base + sizes.bias};
  }
};

Gemm::Gemm(cudaStream_t stream, Buffer workspace, Choice choice, std::string store)
    : stream_(stream), workspace_(std::move(workspace)), choice_(choice), store_(std::move(store)) {
  cublasLtHandle_t handle = nullptr;
  MEZZO_CUBLAS(cublasLtCreate(&handle));
  handle_.reset(handle);
  int device = 0;
  cudaDeviceProp card{};
  MEZZO_CUDA(cudaGetDevice(&device));
  MEZZO_CUDA(cudaGetDeviceProperties(&card, device));
  card_ = card.name;
}

std::size_t Gemm::search_bytes(const GemmShape& shape, std::int64_t rows) {
  return SearchLayout(shape, rows).bytes;
}

std::vector<Gemm::Algorithm> Gemm::candidates(const Search& search) const {
  const GemmShape& shape = search.shape;
  const SearchLayout& sizes = search.sizes;
  const Description description = describe(shape, workspace_.data());
  const Layout w = layout(shape.in, shape.n, shape.k, sizes.x_stride);
  const Layout x = layout(shape.in, sizes.rows, shape.k, sizes.x_stride);
  const Layout y = layout(shape.out, sizes.rows, shape.n, sizes.y_stride);
  cublasLtMatmulPreference_t raw = nullptr;
  MEZZO_CUBLAS(cublasLtMatmulPreferenceCreate(&raw));
  const Preference preference(raw);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    MEZZO_CUBLAS(cublasLtMatmulPreferenceSetAttribute(raw, attribute, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_.bytes()});
  if (choice_ == Choice::same_bits)
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, static_cast<std::uint32_t>(vector_bytes));
  }
  std::array<cublasLtMatmulHeuristicResult_t, most_candidates> found{};
  int count = 0;
  MEZZO_CUBLAS(cublasLtMatmulAlgoGetHeuristic(handle_.get(), description.get(), w.get(), x.get(), y.get(),
                                              y.get(), preference.get(), most_candidates, found.data(),
                                              &count));
  std::vector<Algorithm> algorithms;
  for (int i = 0; i < count; ++i) {
    const auto& result = found[static_cast<std::size_t>(i)];
    std::int32_t split = 1;
    std::size_t written = 0;
    MEZZO_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&result.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split,
                                                      sizeof(split), &written));
    if (result.state != CUBLAS_STATUS_SUCCESS) continue;
    if (choice_ == Choice::any_bits || split <= 1) algorithms.push_back(result.algo);
  }
  return algorithms;
}

cublasStatus_t Gemm::launch(const GemmShape& shape, const GemmOperands& o, const Algorithm& algorithm) const {
  const Description description = describe(shape, o.bias);
  const Layout w = layout(shape.in, shape.n, shape.k, o.weight_stride);
  const Layout x = layout(shape.in, o.rows, shape.k, o.x_stride);
  const Layout y = layout(shape.out, o.rows, shape.n, o.y_stride);
  const float one = 1.0f;
  const float zero = 0.0f;
  return cublasLtMatmul(handle_.get(), description.get(), &one, o.weight, w.get(), o.x, x.get(), &zero, o.y,
                        y.get(), o.y, y.get(), &algorithm, workspace_.data(), workspace_.bytes(), stream_);
}

void Gemm::run(const GemmShape& shape, const GemmOperands& operands) const {
  if (operands.rows == 0) return;
  MEZZO_CUBLAS(launch(shape, operands, algorithms_.at(shape)));
}

bool Gemm::passes(const Search& search, const Algorithm& algorithm) const {
  // Of as many rows as the search times, or more: few, odd numbers, whole tiles and more; at the start, in
  // the middle of tiles and across them, and at the end.
  struct Range {
    std::int64_t first, rows;
  };
  const std::int64_t all = search.sizes.all_rows;
  const std::int64_t most = search.sizes.check_rows;
  const std::array<Range, 12> ranges{{{0, 1},
                                      {1, 1},
                                      {5, 2},
                                      {17, 31},
                                      {64, 64},
                                      {100, 128},
                                      {129, 257},
                                      {31, most - 64},
                                      {1, most - 1},
                                      {all / 2 - 31, 257},
                                      {all - 257, 257},
                                      {all - 1, 1}}};
  const GemmShape& shape = search.shape;
  if (launch(shape, search.operands(0, all, search.sizes.y), algorithm) != CUBLAS_STATUS_SUCCESS)
    return false;
  auto* const differences = reinterpret_cast<std::uint32_t*>(search.base + search.sizes.differences);
  MEZZO_CUDA(cudaMemsetAsync(differences, 0, sizeof(std::uint32_t), stream_));
  for (const Range& range : ranges) {
    GemmOperands part = search.operands(range.first, range.rows, search.sizes.y_again);
    part.y = search.base + search.sizes.y_again;
    if (launch(shape, part, algorithm) != CUBLAS_STATUS_SUCCESS) return false;
    const auto size = static_cast<std::int64_t>(size_of(shape.out));
    MEZZO_CUDA(cuda::count_differences(part.y, search.operands(range.first, range.rows, search.sizes.y).y,
                                       range.rows, shape.n * size, search.sizes.y_stride * size, differences,
                                       stream_));
  }
  std::uint32_t found = 0;
  MEZZO_CUDA(cudaMemcpyAsync(&found, differences, sizeof(found), cudaMemcpyDeviceToHost, stream_));
  MEZZO_CUDA(cudaStreamSynchronize(stream_));
  return found == 0;
}

double Gemm::seconds(const Search& search, const Algorithm& algorithm) const {
  cudaEvent_t raw[2] = {};
  for (cudaEvent_t& event : raw) MEZZO_CUDA(cudaEventCreate(&event));
  const Event begin(raw[0]), end(raw[1]);
  const GemmOperands all = search.operands(0, search.sizes.rows, search.sizes.y);
  std::vector<float> times;
  for (int i = 0; i <= timings; ++i) {
    // Writing all that lies behind x drives weight and x out of the cache.
    MEZZO_CUDA(
        cudaMemsetAsync(search.base + search.sizes.y, 0, search.sizes.bytes - search.sizes.y, stream_));
    MEZZO_CUDA(cudaEventRecord(begin.get(), stream_));
    if (launch(search.shape, all, algorithm) != CUBLAS_STATUS_SUCCESS) return -1.0;
    MEZZO_CUDA(cudaEventRecord(end.get(), stream_));
    MEZZO_CUDA(cudaEventSynchronize(end.get()));
    float milliseconds = 0.0f;
    MEZZO_CUDA(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    if (i > 0) times.push_back(milliseconds);  // the first one loads the kernel
  }
  std::sort(times.begin(), times.end());
  return 1e-3 * static_cast<double>(times[times.size() / 2]);
}

std::string Gemm::store_key(const GemmShape& shape, std::int64_t rows) const {
  return fmt::format("{} / cuBLASLt {} / {} / {} rows", card_, cublasLtGetVersion(), text_of(shape), rows);
}

void Gemm::choose(const GemmShape& shape, std::int64_t rows, void* scratch, std::size_t scratch_bytes) {
  const Search search{shape, SearchLayout(shape, rows), static_cast<std::byte*>(scratch)};
  const SearchLayout& sizes = search.sizes;
  if (scratch_bytes < sizes.bytes) {
    throw DeviceError("a search for a matrix product needs {} bytes, but {} were prepared", sizes.bytes,
                      scratch_bytes);
  }
  // x and the weight in one go.
  MEZZO_CUDA(cuda::fill_normals(search.base, shape.in, static_cast<std::int64_t>(sizes.y / size_of(shape.in)),
                                stream_));
  const auto fill_bias = [&] {
    MEZZO_CUDA(cuda::fill_normals(search.base + sizes.bias, shape.out, sizes.y_stride, stream_));
  };
  fill_bias();

  // What a record or the store names is taken if it passes; both may come from another library.
  std::map<std::string, std::string> stored;
  if (!store_.empty()) stored = read_store(store_);
  for (const auto& [entries, key] : {std::pair(&std::as_const(kept_), text_of(shape)),
                                     std::pair(&std::as_const(stored), store_key(shape, rows))}) {
    const auto found = entries->find(key);
    if (found == entries->end()) continue;
    const std::optional<Algorithm> algorithm = algorithm_from(found->second);
    if (algorithm && passes(search, *algorithm)) {
      algorithms_[shape] = *algorithm;
      return;
    }
  }

  std::vector<std::pair<double, Algorithm>> timed;
  const std::vector<Algorithm> offered = candidates(search);
  const auto count = static_cast<int>(offered.size());
  fewest_candidates_ = std::min(count, fewest_candidates_.value_or(count));
  for (const Algorithm& algorithm : offered) {
    const double time = seconds(search, algorithm);
    if (time > 0.0) timed.emplace_back(time, algorithm);
  }
  std::ranges::stable_sort(timed, {}, &std::pair<double, Algorithm>::first);
  fill_bias();  // the timing has written over it
  for (const auto& [time, algorithm] : timed) {
    if (choice_ == Choice::same_bits && !passes(search, algorithm)) continue;
    algorithms_[shape] = algorithm;
    if (!store_.empty()) add_to_store(store_, store_key(shape, rows), hex_of(algorithm));
    return;
  }
  throw DeviceError(
      "none of {} algorithms of cuBLASLt for products of {} gives a row the same bits at any number of rows",
      timed.size(), text_of(shape));
}

std::map<std::string, std::string> Gemm::record() const {
  std::map<std::string, std::string> record;
  for (const auto& [shape, algorithm] : algorithms_) record[text_of(shape)] = hex_of(algorithm);
  return record;
}

void Gemm::keep(const std::map<std::string, std::string>& record) {
  kept_ = record;
  algorithms_.clear();
}

}  // namespace mezzo

// Noise, update and hash as a device computes them, against the same functions on the host: not one bit may
// differ.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cpu/noise.h"
#include "kernels/cpu/update.h"
#include "mezzo/core/noise.h"
#include "mezzo/core/update.h"

namespace mezzo {
namespace {

__global__ void fill_normals(float* out, std::int64_t count, std::uint64_t seed, std::uint32_t tensor,
                             std::uint64_t first_block) {
  const std::int64_t block = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * block >= count) return;
  const NoiseQuad quad = normal_block(seed, tensor, first_block + static_cast<std::uint64_t>(block));
  for (int i = 0; i < 4 && 4 * block + i < count; ++i) out[4 * block + i] = quad.value[i];
}

__global__ void fill_one_by_one(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed,
                                std::uint32_t tensor, std::uint64_t first_element) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) out[i] = noise_at(kind, seed, tensor, first_element + static_cast<std::uint64_t>(i));
}

/// Pairs from words on a grid of odd stride: every binade of the radius, every octant of the angle.
__global__ void transform_grid(float* out, std::int64_t pairs) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  const NormalPair pair =
      box_muller(static_cast<std::uint32_t>(i) * 1021u, static_cast<std::uint32_t>(i) * 2654435761u);
  out[2 * i] = pair.first;
  out[2 * i + 1] = pair.second;
}

__global__ void fill_initial(float* out, std::int64_t count, std::uint32_t fan_in) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) out[i] = initial_uniform(3, 1, static_cast<std::uint64_t>(i), kaiming_bound(fan_in));
}

__global__ void update_all(float* theta, std::int64_t count, std::uint32_t tensor, const std::uint64_t* seeds,
                           const float* coefficients, std::int64_t directions, NoiseKind kind,
                           float learning_rate, float weight_decay) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  theta[i] = updated(theta[i], tensor, static_cast<std::uint64_t>(i), seeds, coefficients, directions, kind,
                     learning_rate, weight_decay);
}

/// Threads add their shares in no fixed order: the sum does not depend on it.
__global__ void hash_all(const float* theta, std::int64_t count, std::uint32_t tensor,
                         unsigned long long* sum) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) atomicAdd(sum, element_hash(tensor, static_cast<std::uint64_t>(i), theta[i]));
}

void require(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

/// `count` elements in device memory.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) { require(cudaMalloc(&data_, count * sizeof(T))); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    require(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  std::vector<T> host() const {
    require(cudaGetLastError());
    std::vector<T> values(count_);
    require(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

constexpr int threads = 256;
unsigned blocks(std::int64_t work) { return static_cast<unsigned>((work + threads - 1) / threads); }

void expect_same_bits(const std::vector<float>& device, const std::vector<float>& host) {
  ASSERT_EQ(device.size(), host.size());
  std::size_t mismatches = 0, first = 0;
  for (std::size_t i = 0; i < host.size(); ++i) {
    if (std::memcmp(&device[i], &host[i], sizeof(float)) != 0 && mismatches++ == 0) first = i;
  }
  EXPECT_EQ(mismatches, 0u) << "first at " << first << ": device " << device[first] << ", host "
                            << host[first];
}

class CudaNoiseBits : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
  }
};

constexpr std::int64_t many = (std::int64_t{1} << 23) + 3;  // 8 million, and a partial block

TEST_F(CudaNoiseBits, Normals) {
  for (const std::uint64_t first_block : {std::uint64_t{0}, (std::uint64_t{1} << 32) - 1000}) {
    DeviceArray<float> device(many);
    fill_normals<<<blocks(many / 4 + 1), threads>>>(device.data(), many, 0x123456789abcdefu, 7, first_block);
    std::vector<float> host(many);
    cpu::fill_noise(host.data(), many, NoiseKind::gaussian, 0x123456789abcdefu, 7, 4 * first_block);
    expect_same_bits(device.host(), host);
  }
}

TEST_F(CudaNoiseBits, ElementByElement) {
  for (const NoiseKind kind : {NoiseKind::gaussian, NoiseKind::rademacher}) {
    DeviceArray<float> device(many);
    fill_one_by_one<<<blocks(many), threads>>>(device.data(), many, kind, 42, 1, 129);
    std::vector<float> host(many);
    cpu::fill_noise(host.data(), many, kind, 42, 1, 129);
    expect_same_bits(device.host(), host);
  }
}

TEST_F(CudaNoiseBits, TransformOverTheWordsRange) {
  constexpr std::int64_t pairs = std::int64_t{1} << 22;
  DeviceArray<float> device(2 * pairs);
  transform_grid<<<blocks(pairs), threads>>>(device.data(), pairs);
  std::vector<float> host;
  for (std::int64_t i = 0; i < pairs; ++i) {
    const NormalPair pair =
        box_muller(static_cast<std::uint32_t>(i) * 1021u, static_cast<std::uint32_t>(i) * 2654435761u);
    host.push_back(pair.first);
    host.push_back(pair.second);
  }
  expect_same_bits(device.host(), host);
}

TEST_F(CudaNoiseBits, InitialValues) {
  for (const std::uint32_t fan_in : {1u, 3u, 288u, 4096u}) {
    constexpr std::int64_t count = 1 << 16;
    DeviceArray<float> device(count);
    fill_initial<<<blocks(count), threads>>>(device.data(), count, fan_in);
    std::vector<float> host(count);
    for (std::uint64_t i = 0; i < host.size(); ++i) host[i] = initial_uniform(3, 1, i, kaiming_bound(fan_in));
    expect_same_bits(device.host(), host);
  }
}

TEST_F(CudaNoiseBits, UpdateAndHash) {
  constexpr std::int64_t count = (1 << 21) + 5;
  const std::vector<std::uint64_t> seeds = {11, 0xfedcba9876543210u, 13, 14, 15};
  const std::vector<float> coefficients = {0.7f, -1.25f, 0.0f, 3.1e-3f, -2.0e2f};
  DeviceArray<std::uint64_t> device_seeds(seeds);
  DeviceArray<float> device_coefficients(coefficients);
  for (const NoiseKind kind : {NoiseKind::gaussian, NoiseKind::rademacher}) {
    std::vector<float> theta(count);
    cpu::fill_noise(theta.data(), count, NoiseKind::gaussian, 99, 0, 0);
    theta[1] = -0.0f;
    theta[2] = 1e-40f;  // subnormal: a device that flushes it to zero is found out
    DeviceArray<float> device(theta);
    update_all<<<blocks(count), threads>>>(device.data(), count, 4, device_seeds.data(),
                                           device_coefficients.data(),
                                           static_cast<std::int64_t>(seeds.size()), kind, 5e-3f, 0.02f);
    cpu::update(theta.data(), {}, count, 4, seeds, coefficients, kind, sgd_factors(5e-3f, 0.02f), 1);
    expect_same_bits(device.host(), theta);

    DeviceArray<unsigned long long> sum(std::vector<unsigned long long>{0});
    hash_all<<<blocks(count), threads>>>(device.data(), count, 4, sum.data());
    EXPECT_EQ(sum.host()[0], cpu::hash(theta.data(), count, 4, 1));
  }
}

TEST_F(CudaNoiseBits, SubnormalsSurviveAnUpdate) {
  const std::vector<std::uint64_t> seeds = {11};
  const std::vector<float> coefficients = {1e-38f};
  DeviceArray<std::uint64_t> device_seeds(seeds);
  DeviceArray<float> device_coefficients(coefficients);
  std::vector<float> theta(1000, 1e-40f);
  DeviceArray<float> device(theta);
  update_all<<<blocks(1000), threads>>>(device.data(), 1000, 0, device_seeds.data(),
                                        device_coefficients.data(), 1, NoiseKind::gaussian, 1e-2f, 0.5f);
  cpu::update(theta.data(), {}, 1000, 0, seeds, coefficients, NoiseKind::gaussian, sgd_factors(1e-2f, 0.5f),
              1);
  expect_same_bits(device.host(), theta);
}

}  // namespace
}  // namespace mezzo

// Words over NCCL are the words over the star, bit for bit: run on 2 ranks, one GPU each.
#include <gtest/gtest.h>

#include <bit>

#include "mezzo/backend/devices.h"
#include "mezzo/comm/together.h"
#include "mpi_main.h"

namespace mezzo {
namespace {

constexpr Patience kPatience{Seconds(20), Seconds(60)};
constexpr std::size_t kMost = 10007;

class Nccl : public testing::Test {
 protected:
  void SetUp() override {
    const auto ranks = static_cast<std::size_t>(test::exchange().size());
    if (!has_nccl()) GTEST_SKIP() << "this build has no NCCL";
    std::string reason;
    if (!cuda_available(&reason)) GTEST_SKIP() << reason;
    if (cuda_devices().size() < ranks || ranks < 2) {
      GTEST_SKIP() << "needs a GPU for each of at least 2 ranks, found " << cuda_devices().size() << " for "
                   << ranks;
    }
    backend_ = make_backend({.device = DeviceKind::cuda, .device_index = test::exchange().rank()});
    transport_ = make_nccl_transport(test::exchange(), backend_->native_stream(), kMost, kPatience);
  }

  std::vector<std::uint64_t> sum(std::vector<std::uint64_t> words, Transport* transport) {
    require_complete(test::exchange(), test::exchange().sum(words, kPatience, transport));
    return words;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Transport> transport_;  // on the backend's stream
};

TEST_F(Nccl, SumsAsTheStarDoes) {
  const auto rank = static_cast<std::uint64_t>(test::exchange().rank());
  for (const std::size_t count :
       {std::size_t{1}, std::size_t{31}, std::size_t{33}, std::size_t{257}, kMost}) {
    std::vector<std::uint64_t> words(count);
    for (std::size_t i = 0; i < count; ++i) words[i] = (rank + 1) * 0x9e3779b97f4a7c15u * (i + 1);
    EXPECT_EQ(sum(words, transport_.get()), sum(words, nullptr)) << count << " words";
  }
}

TEST_F(Nccl, KeepsTheBitsOfDoubles) {
  const std::vector<std::uint64_t> patterns{0x7ff8dead0000beefu, 0x7ff0000000000001u,
                                            std::bit_cast<std::uint64_t>(-0.0), 0xffffffffffffffffu};
  for (int writer = 0; writer < test::exchange().size(); ++writer) {
    std::vector<std::uint64_t> words(patterns.size(), 0);
    if (test::exchange().rank() == writer) words = patterns;
    EXPECT_EQ(sum(words, transport_.get()), patterns) << "written by rank " << writer;
  }
}

TEST_F(Nccl, RefusesMoreWordsThanItWasMadeFor) {
  std::vector<std::uint64_t> words(kMost + 1);
  EXPECT_THROW(transport_->begin(words), CommError);
}

}  // namespace
}  // namespace mezzo

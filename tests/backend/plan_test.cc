// Sizes without a device, and the floor of the products.
#include "mezzo/backend/floor.h"
#include "operands.h"

namespace mezzo::test {
namespace {

TEST(DevicePlan, IsTheBackendsOwn) {
  const RandomProduct random(48, {20, 20}, {8, 0}, true, 1);
  const Workload workload{
      .largest = {.tokens = 65, .sequences = 3, .reads = 5, .questions = 7, .longest = 40},
      .probes = 4,
      .directions = 2,
      .products = {&random.product},
      .attention = {.heads = 4, .kv_heads = 2, .head_dim = 8}};
  for (const DeviceKind kind : {DeviceKind::reference, DeviceKind::cpu, DeviceKind::cuda}) {
    if (kind == DeviceKind::cuda && !cuda_available(nullptr)) continue;
    for (const bool fp32 : {true, false}) {
      const BackendOptions options{.device = kind, .fp32 = fp32, .threads = 3};
      const std::unique_ptr<DevicePlan> plan = make_device_plan(options);
      const std::unique_ptr<Backend> backend = make_backend(options);
      SCOPED_TRACE(backend->name());
      EXPECT_EQ(plan->name(), backend->name());
      EXPECT_EQ(plan->weight_dtype(), backend->weight_dtype());
      EXPECT_EQ(plan->activation_dtype(), backend->activation_dtype());
      EXPECT_EQ(plan->residual_dtype(), backend->residual_dtype());
      EXPECT_EQ(plan->input_stride(random.product), backend->input_stride(random.product));
      EXPECT_EQ(plan->weight_stride(48, 8), backend->weight_stride(48, 8));
      EXPECT_EQ(plan->scratch_bytes(workload), backend->scratch_bytes(workload));
    }
  }
}

TEST(DevicePlan, OfACardThatIsNotThere) {
  const std::unique_ptr<DevicePlan> bf16 = make_device_plan({.device = DeviceKind::cuda});
  const std::unique_ptr<DevicePlan> fp32 = make_device_plan({.device = DeviceKind::cuda, .fp32 = true});
  EXPECT_EQ(bf16->name(), "cuda");
  EXPECT_EQ(bf16->weight_dtype(), DType::bf16);
  EXPECT_EQ(fp32->weight_dtype(), DType::f32);
  EXPECT_EQ(bf16->residual_dtype(), DType::f32);
  EXPECT_EQ(bf16->weight_stride(33, 0), 40);  // rows of products begin on 16 bytes
  EXPECT_GT(bf16->weight_stride(48, 8), 48);  // and have room for tails
  EXPECT_EQ(bf16->weight_stride(40, 8), 40);  // if those can begin on the tensor cores' inner step
}

TEST(ProductFloor, RunsEveryProduct) {
  const std::vector<FloorProduct> products = {{.rows = 5, .out = 3, .in = 7}, {.rows = 1, .out = 9, .in = 2}};
  EXPECT_EQ(products[0].operations(), 2.0 * 5 * 3 * 7);
  make_product_floor({.device = DeviceKind::cpu, .threads = 2}, products)->run();
}

}  // namespace
}  // namespace mezzo::test

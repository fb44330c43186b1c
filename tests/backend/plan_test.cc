// Sizes and ways of products without a device, and the GEMM bound.
#include "cuda_plan.h"
#include "cuda_targets.h"

#include <set>
#include <tuple>

#include "mezzo/backend/gemm_bound.h"
#include "operands.h"

namespace mezzo::test {
namespace {

TEST(DevicePlan, IsTheBackendsOwn) {
  const RandomProduct random(48, {20, 20}, {8, 0}, true, 1);
  const Workload workload{
      .largest = {.tokens = 65, .sequences = 3, .loss_rows = 5, .targets = 7, .longest = 40},
      .probes = 4,
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
      EXPECT_EQ(plan->activation_dtype(), backend->activation_dtype());
      EXPECT_EQ(plan->residual_dtype(), backend->residual_dtype());
      EXPECT_EQ(plan->input_stride(random.product), backend->input_stride(random.product));
      const Weight planned = plan->place_weight(20, 48, 8), placed = backend->place_weight(20, 48, 8);
      EXPECT_EQ(planned.type, placed.type);
      EXPECT_EQ(planned.bytes(), placed.bytes());
      EXPECT_EQ(planned.codes.row_stride, placed.codes.row_stride);
      EXPECT_EQ(planned.tail_columns, placed.tail_columns);
      EXPECT_EQ(plan->scratch_bytes(workload), backend->scratch_bytes(workload));
    }
  }
}

TEST(DevicePlan, OfACardThatIsNotThere) {
  const std::unique_ptr<DevicePlan> bf16 = make_device_plan({.device = DeviceKind::cuda});
  const std::unique_ptr<DevicePlan> fp32 = make_device_plan({.device = DeviceKind::cuda, .fp32 = true});
  EXPECT_EQ(bf16->name(), "cuda");
  EXPECT_EQ(bf16->place_weight(20, 48, 0).type, WeightType::bf16);
  EXPECT_EQ(fp32->place_weight(20, 48, 0).type, WeightType::f32);
  EXPECT_EQ(bf16->residual_dtype(), DType::f32);
  const auto stride = [&](std::int64_t in, std::int64_t ranks) {
    return bf16->place_weight(20, in, ranks).codes.row_stride;
  };
  EXPECT_EQ(stride(33, 0), 40);  // rows of products begin on 16 bytes
  EXPECT_GT(stride(48, 8), 48);  // and have room for tails
  EXPECT_EQ(stride(40, 8), 40);  // if those can begin on the tensor cores' inner step
  EXPECT_EQ(bf16->place_weight(20, 48, 8).tail_columns, stride(48, 8) - 48);
  EXPECT_EQ(bf16->place_weight(20, 48, 8).stored_rows, 24);
}

TEST(CudaPlan, ServesLowRankTailsAlone) {
  const CudaPlan plan(false, true);
  EXPECT_TRUE(plan.serves(Perturbation()));
  EXPECT_TRUE(plan.serves(LowRankTail{}));
  EXPECT_FALSE(plan.serves(DenseNoise{}));
  RandomProduct random(48, {16, 16}, {0, 0}, false, 1);
  random.product.parts[1].perturbation = DenseNoise{};
  const Workload workload{.largest = {}, .probes = 1, .products = {&random.product}, .attention = {}};
  EXPECT_THROW(check_served(plan, workload), DeviceError);
}

TEST(Weights, WhatNobodyServesIsRefusedByName) {
  const auto refusal = [](const DevicePlan& plan, const Weight& weight) -> std::string {
    RandomProduct random(48, {16, 16}, {8, 0}, false, 1);
    random.product.weight = weight;
    try {
      check_served(plan, {.largest = {}, .probes = 1, .products = {&random.product}, .attention = {}});
    } catch (const DeviceError& error) {
      return error.what();
    }
    return "";
  };
  const CudaPlan bf16(false, true), fp32(true, true);
  const std::unique_ptr<DevicePlan> cpu = make_device_plan({.device = DeviceKind::cpu});
  const std::unique_ptr<DevicePlan> reference = make_device_plan({.device = DeviceKind::reference});
  for (const DevicePlan* plan : std::vector<const DevicePlan*>{&bf16, &fp32, cpu.get(), reference.get()}) {
    Weight weight = plan->place_weight(32, 48, 8);
    EXPECT_EQ(refusal(*plan, weight), "");
    weight.residence = Residence::host_ring;
    EXPECT_EQ(
        refusal(*plan, weight),
        fmt::format("device {}: the weight of product is {} on a host ring, which this device does not serve",
                    plan->name(), name_of(weight.type)));
    weight.residence = Residence::device;
    for (const WeightType type : {WeightType::fp8, WeightType::int8, WeightType::int4}) {
      weight.type = type;
      EXPECT_EQ(refusal(*plan, weight),
                fmt::format(
                    "device {}: the weight of product is {} on the device, which this device does not serve",
                    plan->name(), name_of(type)));
    }
  }
  Weight other = bf16.place_weight(32, 48, 8);
  EXPECT_NE(refusal(fp32, other), "");
  EXPECT_NE(refusal(*cpu, other), "");
}

// ---- which cards a build is for

TEST(CudaTargets, RealCodeRunsOnItsOwnMajorNumberAlone) {
  const auto trouble = [](const char* targets, int major, int minor) {
    return trouble_with_capability(major, minor, parse_cuda_targets(targets));
  };
  EXPECT_EQ(trouble("90-real", 9, 0), "");
  EXPECT_EQ(trouble("80-real", 8, 9), "");
  EXPECT_EQ(trouble("86-real", 8, 0),
            "has compute capability 8.0, but this build has device code for 8.6 to 8.9");
  EXPECT_EQ(trouble("90-real", 10, 0),
            "has compute capability 10.0, but this build has device code for 9.0 to 9.9");
  EXPECT_EQ(trouble("90a-real", 12, 1),
            "has compute capability 12.1, but this build has device code for 9.0 alone");
  EXPECT_EQ(trouble("80-real,90-real", 12, 0),
            "has compute capability 12.0, but this build has device code for 8.0 to 8.9, 9.0 to 9.9");
  EXPECT_EQ(trouble("80-real,90-real", 9, 0), "");
}

TEST(CudaTargets, PtxRunsOnLaterCards) {
  const auto trouble = [](const char* targets, int major, int minor) {
    return trouble_with_capability(major, minor, parse_cuda_targets(targets));
  };
  for (const char* targets : {"90", "90-virtual", "80-real,90"}) {
    EXPECT_EQ(trouble(targets, 9, 0), "");
    EXPECT_EQ(trouble(targets, 12, 1), "");
  }
  EXPECT_EQ(trouble("90", 8, 9),
            "has compute capability 8.9, but this build has device code for 9.0 or later");
  // PTX of one card's own features, and of one family's, is for no other.
  EXPECT_EQ(trouble("90a", 10, 0),
            "has compute capability 10.0, but this build has device code for 9.0 alone");
  EXPECT_EQ(trouble("100f", 10, 3), "");
  EXPECT_EQ(trouble("100f", 12, 0),
            "has compute capability 12.0, but this build has device code for 10.0 to 10.9");
  EXPECT_EQ(trouble("75", 7, 5), "has compute capability 7.5, expected 8.0 or later");
  for (const char* wrong : {"ninety", "9", "90-ptx", "90b", "90,,80"})
    EXPECT_THROW(parse_cuda_targets(wrong), Error) << wrong;
}

// ---- the ways of the cuda backend's products

/// q | k | v or gate | up as a card would have it: bias in the weights' type, whole units of rows stored.
Product on_card(const RandomProduct& random, DType dtype) {
  Product product = random.product;
  product.bias.dtype = dtype;
  product.weight = CudaPlan(dtype == DType::f32, true)
                       .place_weight(random.product.out(), random.product.in(), random.product.tail_ranks());
  return product;
}

Way way_of(const Product& product, const Epilogue& epilogue, bool whole, bool fp32 = false,
           std::size_t first = 0, bool tiles = true) {
  const ProductRange range = range_of(product, first, product.parts.size() - first);
  return CudaPlan(fp32, tiles).way_of(product, range, epilogue, whole);
}

TEST(CudaPlan, ProductsGoStraightIntoTheirOutputsWhereTheyCan) {
  const Epilogue none, gelu{.activation = Activation::gelu_tanh};
  for (const bool bias : {false, true}) {
    const RandomProduct base(48, {32, 16, 16}, {0, 0, 0}, bias, 1),
        lora(48, {32, 16, 16}, {8, 0, 8}, bias, 1);
    for (const RandomProduct* random : {&base, &lora}) {
      const Product product = on_card(*random, DType::bf16);
      EXPECT_EQ(way_of(product, none, true), Way::direct);
      EXPECT_EQ(way_of(product, none, true, false, 1), Way::direct);
      EXPECT_EQ(way_of(product, gelu, true), Way::direct);
      EXPECT_EQ(way_of(product, none, false), Way::plain);
    }
    EXPECT_EQ(way_of(on_card(base, DType::f32), none, true, true), bias ? Way::plain : Way::direct);
    EXPECT_EQ(way_of(on_card(base, DType::f32), gelu, true, true), Way::plain);
    EXPECT_EQ(way_of(on_card(lora, DType::f32), none, true, true), Way::plain);
    EXPECT_EQ(way_of(on_card(base, DType::f32), none, true), bias ? Way::plain : Way::direct);
  }
  // No unit of rows, and an `in` behind which columns would begin within the tensor cores' inner step.
  EXPECT_EQ(way_of(on_card(RandomProduct(48, {31, 1}, {0, 0}, false, 1), DType::bf16), none, true, false, 1),
            Way::plain);
  EXPECT_EQ(way_of(on_card(RandomProduct(40, {32}, {8}, false, 1), DType::bf16), none, true), Way::plain);
  EXPECT_EQ(way_of(on_card(RandomProduct(40, {32}, {0}, false, 1), DType::bf16), none, true), Way::direct);
}

TEST(CudaPlan, TailsWithoutRoomInTheWeightGoThroughScratch) {
  const CudaPlan plan(false, true);
  Product product = on_card(RandomProduct(48, {32, 16, 16}, {8, 0, 8}, false, 1), DType::bf16);
  EXPECT_EQ(plan.input_stride(product), product.weight.codes.row_stride);
  EXPECT_EQ(way_of(product, {}, true), Way::direct);
  // Rows as long as before, but what lies behind `in` is not the tails'.
  product.weight.tail_columns = 0;
  EXPECT_EQ(plan.input_stride(product), 48);
  EXPECT_EQ(way_of(product, {}, true), Way::plain);
  for (const GemmShape& shape : plan.shapes_of({&product}, 256)) EXPECT_EQ(shape.k, 48);
  // What has no tails needs none.
  const Product base = on_card(RandomProduct(48, {32, 16, 16}, {0, 0, 0}, false, 1), DType::bf16);
  EXPECT_EQ(base.weight.tail_columns, 0);
  EXPECT_EQ(way_of(base, {}, true), Way::direct);
}

TEST(CudaPlan, GatedProducts) {
  const Epilogue gated{.activation = Activation::silu, .gated = true};
  for (const std::int64_t rank : {0, 8}) {
    const RandomProduct random(48, {264, 264}, {rank, rank}, false, 1),
        odd(48, {4, 4}, {rank, rank}, false, 1);
    EXPECT_EQ(way_of(on_card(random, DType::bf16), gated, true), Way::fused);
    EXPECT_EQ(way_of(on_card(random, DType::bf16), gated, true, false, 0, false), Way::gated);
    EXPECT_EQ(way_of(on_card(random, DType::bf16), gated, false), Way::plain);
    EXPECT_EQ(way_of(on_card(random, DType::f32), gated, true, true), Way::plain);
    EXPECT_EQ(way_of(on_card(odd, DType::bf16), gated, true), Way::plain);
    const RandomProduct biased(48, {264, 264}, {rank, rank}, true, 1);
    EXPECT_EQ(way_of(on_card(biased, DType::bf16), gated, true), Way::gated);
  }
}

/// (n, k, whether fp32) of each shape.
std::set<std::tuple<std::int64_t, std::int64_t, bool>> shapes_of(const PlannedProduct& planned,
                                                                 bool tiles = true) {
  std::set<std::tuple<std::int64_t, std::int64_t, bool>> shapes;
  for (const GemmShape& shape : CudaPlan(false, tiles).shapes_of(planned, 256))
    shapes.emplace(shape.n, shape.k, shape.out == DType::f32);
  return shapes;
}

TEST(CudaPlan, ShapesAreThoseOfEveryWayThatAForwardTakes) {
  // 16 ranks: 32 columns for s, and for 20 directions of 256 rows as many blocks of 16 as 128 columns hold.
  const std::int64_t in = 48, with_tails = in + 32 + 6 * 16;
  const Product base = on_card(RandomProduct(in, {32, 16, 16}, {0, 0, 0}, false, 1), DType::bf16);
  const Product lora = on_card(RandomProduct(in, {32, 16, 16}, {8, 0, 8}, false, 1), DType::bf16);
  using Shapes = std::set<std::tuple<std::int64_t, std::int64_t, bool>>;
  EXPECT_EQ(shapes_of({&base}), (Shapes{{64, in, false}, {32, in, false}}));
  EXPECT_EQ(shapes_of({&lora}),
            (Shapes{{64, with_tails, false}, {32, with_tails, false}, {64, in, true}, {32, in, true}}));
  const Epilogue gated{.activation = Activation::silu, .gated = true};
  const Product up = on_card(RandomProduct(in, {264, 264}, {0, 0}, false, 1), DType::bf16);
  const Product lora_up = on_card(RandomProduct(in, {264, 264}, {8, 8}, false, 1), DType::bf16);
  EXPECT_EQ(shapes_of({&up, gated}), Shapes());
  EXPECT_EQ(shapes_of({&lora_up, gated}), (Shapes{{528, in, true}}));
  EXPECT_EQ(shapes_of({&up, gated}, false), (Shapes{{528, in, false}}));
  EXPECT_EQ(shapes_of({&lora_up, gated}, false), (Shapes{{528, with_tails, false}, {528, in, true}}));
  const Product head = on_card(RandomProduct(in, {257}, {0}, false, 1), DType::bf16);
  EXPECT_EQ(shapes_of({&head, {}, true}), Shapes());
  EXPECT_EQ(shapes_of({&head, {}, true}, false), (Shapes{{264, in, true}}));
}

TEST(CudaPlan, SlotsOfARange) {
  const auto direction_blocks = [](std::int64_t in, const std::vector<std::int64_t>& ranks,
                                   std::int64_t direction_rows) {
    Product product{.name = "qkv", .weight = {.codes = {.cols = in}}, .bias = {}, .parts = {}};
    for (const std::int64_t rank : ranks) {
      ProductPart part{.name = "", .row_begin = product.weight.codes.rows, .rows = in};
      if (rank > 0)
        part.perturbation = LowRankTail{.a = {.rows = rank, .cols = in}, .b = {.rows = in, .cols = rank}};
      product.weight.codes.rows += in;
      product.parts.push_back(part);
    }
    return columns_of(product, direction_rows).direction_blocks;
  };
  // 8192 rows are enough for 3 x 4096 columns; of 3 x 768 it pays to have more, as far as there is room.
  EXPECT_EQ(direction_blocks(4096, {8, 0, 8}, 8192), 1);
  EXPECT_EQ(direction_blocks(4096, {8, 0, 8}, 4096), 2);
  EXPECT_EQ(direction_blocks(4096, {8, 0, 8}, 256), 10);
  EXPECT_EQ(direction_blocks(768, {8, 0, 0}, 8192), 3);
  EXPECT_EQ(direction_blocks(768, {8, 0, 0}, 2048), 6);
  EXPECT_EQ(direction_blocks(768, {8, 0, 0}, 256), 7);
}

TEST(GemmBound, RunsEveryProduct) {
  const std::vector<PlainProduct> products = {{.rows = 5, .out = 3, .in = 7}, {.rows = 1, .out = 9, .in = 2}};
  EXPECT_EQ(products[0].operations(), 2.0 * 5 * 3 * 7);
  make_gemm_bound({.device = DeviceKind::cpu, .threads = 2}, products)->run();
}

}  // namespace
}  // namespace mezzo::test

// RUN: tcc-opt %s --passes=assign-layout,canonicalize,dce --split-input-file --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=assign-layout{dims=nhwc} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// CHECK: graph.conv{{.*}}Conv_0{{.*}}nhwc: 7 ops are channels-last; 256 bytes are transposed
// OPTION: the pass assign-layout has no option dims

// One transpose in front; the mean over space drops the dims, so none is needed at the end. Per-channel constants move.
// CHECK: ^bb0(%x: tensor<1x4x4x4xf32>):
// CHECK: %[[T:.*]] = graph.transpose(%x) {perm = [0, 2, 3, 1]}
// CHECK: %[[C:.*]] = graph.conv(%[[T]], %{{.*}}) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], dims = "nhwc"} : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>)
// CHECK: %[[A:.*]] = graph.add(%[[C]], %{{.*}}) : (tensor<1x4x4x4xf32>, tensor<1x1x1x4xf32>)
// CHECK-NEXT: %[[P:.*]] = graph.max_pool(%[[A]]) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1], dims = "nhwc"}
// CHECK: %[[K:.*]] = graph.concat(%[[P]], %[[P]]) {axis = 3}
// CHECK: %[[S0:.*]] = graph.reshape(%[[K]]) {shape = [1, 2, 2, 2, 4]}
// CHECK: %[[S1:.*]] = graph.transpose(%[[S0]]) {perm = [0, 1, 2, 4, 3]}
// CHECK: %[[S2:.*]] = graph.reshape(%[[S1]]) {shape = [1, 2, 2, 8]}
// CHECK: %[[D:.*]] = graph.conv(%[[S2]], %{{.*}}) {{.*}}group = 8, dims = "nhwc"} : (tensor<1x2x2x8xf32>, tensor<8x1x1x1xf32>)
// CHECK-NEXT: %[[M:.*]] = graph.reduce(%[[D]]) {kind = "mean", axes = [1, 2]}
// CHECK-NEXT: %[[R:.*]] = graph.reshape(%[[M]]) {shape = [1, 8]}
// CHECK-NEXT: graph.return(%[[R]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x4x4x4xf32>):
  %w = graph.constant() {value = dense<4x4x1x1xf32: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>} : () -> tensor<4x4x1x1xf32>
  %v = graph.constant() {value = dense<8x1x1x1xf32: 1, 2, 3, 4, 5, 6, 7, 8>} : () -> tensor<8x1x1x1xf32>
  %b = graph.constant() {value = dense<4x1x1xf32: 1, 2, 3, 4>} : () -> tensor<4x1x1xf32>
  %0 = graph.conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x4x4xf32>, tensor<4x4x1x1xf32>) -> tensor<1x4x4x4xf32> loc("Conv_0")
  %1 = graph.add(%0, %b) : (tensor<1x4x4x4xf32>, tensor<4x1x1xf32>) -> tensor<1x4x4x4xf32>
  %2 = graph.max_pool(%1) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x4x4xf32>) -> tensor<1x4x2x2xf32>
  %3 = graph.concat(%2, %2) {axis = 1} : (tensor<1x4x2x2xf32>, tensor<1x4x2x2xf32>) -> tensor<1x8x2x2xf32>
  %4 = graph.reshape(%3) {shape = [1, 2, 4, 2, 2]} : (tensor<1x8x2x2xf32>) -> tensor<1x2x4x2x2xf32>
  %5 = graph.transpose(%4) {perm = [0, 2, 1, 3, 4]} : (tensor<1x2x4x2x2xf32>) -> tensor<1x4x2x2x2xf32>
  %6 = graph.reshape(%5) {shape = [1, 8, 2, 2]} : (tensor<1x4x2x2x2xf32>) -> tensor<1x8x2x2xf32>
  %7 = graph.conv(%6, %v) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], group = 8} : (tensor<1x8x2x2xf32>, tensor<8x1x1x1xf32>) -> tensor<1x8x2x2xf32>
  %8 = graph.reduce(%7) {kind = "mean", axes = [2, 3]} : (tensor<1x8x2x2xf32>) -> tensor<1x8x1x1xf32>
  %9 = graph.reshape(%8) {shape = [1, 8]} : (tensor<1x8x1x1xf32>) -> tensor<1x8xf32>
  graph.return(%9) : (tensor<1x8xf32>) -> ()
}) : () -> ()

// -----

// Without a convolution nothing moves.
// CHECK: %[[P:.*]] = graph.max_pool(%x) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]}
// CHECK-NEXT: graph.return(%[[P]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x4x4x4xf32>):
  %0 = graph.max_pool(%x) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x4x4xf32>) -> tensor<1x4x2x2xf32>
  graph.return(%0) : (tensor<1x4x2x2xf32>) -> ()
}) : () -> ()

// -----

// The model's own permutes are used: nothing is transposed between the convolution and the norm, and a reshape that
// splits channels stays on the plain side.
// CHECK: %[[C:.*]] = graph.conv(%{{.*}}, %{{.*}}) {{.*}}dims = "nhwc"}
// CHECK-NEXT: %[[B:.*]] = graph.transpose(%[[C]]) {perm = [0, 3, 1, 2]}
// CHECK-NEXT: %[[N:.*]] = graph.layer_norm(%[[C]])
// CHECK-NEXT: %[[R:.*]] = graph.reshape(%[[B]]) {shape = [1, 2, 32]}
// CHECK-NEXT: graph.return(%[[N]], %[[R]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
^bb0(%x: tensor<1x4x4x4xf32>):
  %w = graph.constant() {value = dense<4x4x1x1xf32: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>} : () -> tensor<4x4x1x1xf32>
  %0 = graph.conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x4x4xf32>, tensor<4x4x1x1xf32>) -> tensor<1x4x4x4xf32>
  %1 = graph.transpose(%0) {perm = [0, 2, 3, 1]} : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32>
  %2 = graph.layer_norm(%1) {axis = 3, operandSegmentSizes = [1, 0, 0]} : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32>
  %3 = graph.reshape(%0) {shape = [1, 2, 32]} : (tensor<1x4x4x4xf32>) -> tensor<1x2x32xf32>
  graph.return(%2, %3) : (tensor<1x4x4x4xf32>, tensor<1x2x32xf32>) -> ()
}) : () -> ()

// RUN: tcc-opt %s --passes=fuse --split-input-file --remarks 2>&1 | filecheck %s
// RUN: tcc-opt %s --passes=fuse{max-ops=2} --split-input-file --remarks 2>&1 | filecheck %s --check-prefix=TWO
// RUN: not tcc-opt %s --passes=fuse{max-ops=x} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// CHECK: graph.mul{{.*}}Gate_1{{.*}}not fused into conv: another of its operands is computed from the result outside of the group
// CHECK: graph.relu{{.*}}Relu_3{{.*}}not fused into softmax: its result is also used by max_pool
// TWO: graph.sigmoid{{.*}}Sigmoid_0{{.*}}not fused into conv: the group has 2 ops
// OPTION: max-ops

// The bias, the sum and the activation follow the convolution into its group; constants stay outside.
// CHECK: ^bb0(%x: tensor<1x4x4x4xf32>, %r: tensor<1x4x4x4xf32>):
// CHECK-NEXT: %w = graph.constant()
// CHECK-NEXT: %[[Y:.*]] = graph.fused(%x, %w, %r) ({
// CHECK: %[[C:.*]] = graph.conv(
// CHECK-NEXT: %[[A:.*]] = graph.add(%[[C]],
// CHECK-NEXT: %[[S:.*]] = graph.sigmoid(%[[A]])
// CHECK-NEXT: %[[M:.*]] = graph.mul(%[[A]], %[[S]])
// CHECK-NEXT: %[[U:.*]] = graph.relu(%[[M]])
// CHECK-NEXT: graph.yield(%[[U]])
// CHECK: loc("Conv_0", "Add_0", "Sigmoid_0", "Mul_0", "Relu_0")
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x", "r"], result_names = ["y"]} ({
^bb0(%x: tensor<1x4x4x4xf32>, %r: tensor<1x4x4x4xf32>):
  %w = graph.constant() {value = dense<4x1x1x4xf32: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>} : () -> tensor<4x1x1x4xf32>
  %0 = graph.conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], dims = "nhwc"} : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32> loc("Conv_0")
  %1 = graph.add(%0, %r) : (tensor<1x4x4x4xf32>, tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32> loc("Add_0")
  %2 = graph.sigmoid(%1) : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32> loc("Sigmoid_0")
  %3 = graph.mul(%1, %2) : (tensor<1x4x4x4xf32>, tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32> loc("Mul_0")
  %4 = graph.relu(%3) : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32> loc("Relu_0")
  graph.return(%4) : (tensor<1x4x4x4xf32>) -> ()
}) : () -> ()

// -----

// Squeeze and excitation: the gate depends on the mean of the result, so the product is a kernel of its own.
// CHECK: %[[C:.*]] = graph.fused
// CHECK: graph.relu
// CHECK: %[[G:.*]] = graph.fused(%[[C]])
// CHECK: graph.reduce
// CHECK: graph.sigmoid
// CHECK: graph.mul(%[[C]], %[[G]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x4x4x4xf32>):
  %w = graph.constant() {value = dense<4x1x1x4xf32: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16>} : () -> tensor<4x1x1x4xf32>
  %0 = graph.conv(%x, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1], dims = "nhwc"} : (tensor<1x4x4x4xf32>, tensor<4x1x1x4xf32>) -> tensor<1x4x4x4xf32> loc("Conv_1")
  %1 = graph.relu(%0) : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32>
  %2 = graph.reduce(%1) {kind = "mean", axes = [1, 2]} : (tensor<1x4x4x4xf32>) -> tensor<1x1x1x4xf32>
  %3 = graph.sigmoid(%2) : (tensor<1x1x1x4xf32>) -> tensor<1x1x1x4xf32>
  %4 = graph.mul(%1, %3) : (tensor<1x4x4x4xf32>, tensor<1x1x1x4xf32>) -> tensor<1x4x4x4xf32> loc("Gate_1")
  graph.return(%4) : (tensor<1x4x4x4xf32>) -> ()
}) : () -> ()

// -----

// Attention reads q through the transpose, and writes through the one after it; the reshapes are views outside.
// CHECK: %[[V:.*]] = graph.reshape(%x) {shape = [1, 8, 2, 4]}
// CHECK-NEXT: %[[A:.*]] = graph.fused(%[[V]]) ({
// CHECK: graph.transpose
// CHECK: graph.attention
// CHECK: graph.transpose
// CHECK: %[[Y:.*]] = graph.reshape(%[[A]]) {shape = [1, 8, 8]}
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x8x8xf32>):
  %0 = graph.reshape(%x) {shape = [1, 8, 2, 4]} : (tensor<1x8x8xf32>) -> tensor<1x8x2x4xf32>
  %1 = graph.transpose(%0) {perm = [0, 2, 1, 3]} : (tensor<1x8x2x4xf32>) -> tensor<1x2x8x4xf32>
  %2 = graph.attention(%1, %1, %1) {scale = 0.5} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> tensor<1x2x8x4xf32>
  %3 = graph.transpose(%2) {perm = [0, 2, 1, 3]} : (tensor<1x2x8x4xf32>) -> tensor<1x8x2x4xf32>
  %4 = graph.reshape(%3) {shape = [1, 8, 8]} : (tensor<1x8x2x4xf32>) -> tensor<1x8x8xf32>
  graph.return(%4) : (tensor<1x8x8xf32>) -> ()
}) : () -> ()

// -----

// What comes before a row op is computed in it, but not what others need as well. A lone concat stays alone.
// CHECK: %[[R:.*]] = graph.relu(%x)
// CHECK: %[[P:.*]] = graph.max_pool(%[[R]])
// CHECK: %[[S:.*]] = graph.fused(%[[R]]) ({
// CHECK: graph.neg
// CHECK: graph.softmax
// CHECK: %[[K:.*]] = graph.concat(%[[S]], %[[S]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["p", "k"]} ({
^bb0(%x: tensor<1x4x4x4xf32>):
  %0 = graph.relu(%x) : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32> loc("Relu_3")
  %1 = graph.max_pool(%0) {kernel = [2, 2], strides = [2, 2], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x4x4x4xf32>) -> tensor<1x4x2x2xf32>
  %2 = graph.neg(%0) : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32>
  %3 = graph.softmax(%2) {axis = 3} : (tensor<1x4x4x4xf32>) -> tensor<1x4x4x4xf32>
  %4 = graph.concat(%3, %3) {axis = 1} : (tensor<1x4x4x4xf32>, tensor<1x4x4x4xf32>) -> tensor<1x8x4x4xf32>
  graph.return(%1, %4) : (tensor<1x4x2x2xf32>, tensor<1x8x4x4xf32>) -> ()
}) : () -> ()

// -----

// Keys that heads share are read through the expand; what computes them is a kernel of its own.
// CHECK: %[[K:.*]] = graph.tanh(%k)
// CHECK-NEXT: %[[A:.*]] = graph.fused(%[[K]], %q) ({
// CHECK: graph.expand
// CHECK: graph.attention
// CHECK: graph.return(%[[A]])
graph.func() {sym_name = "main", arg_names = ["q", "k"], result_names = ["y"]} ({
^bb0(%q: tensor<1x2x8x4xf32>, %k: tensor<1x1x8x4xf32>):
  %0 = graph.tanh(%k) : (tensor<1x1x8x4xf32>) -> tensor<1x1x8x4xf32>
  %1 = graph.expand(%0) {shape = [1, 2, 8, 4]} : (tensor<1x1x8x4xf32>) -> tensor<1x2x8x4xf32>
  %2 = graph.attention(%q, %1, %1) {scale = 0.5} : (tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>, tensor<1x2x8x4xf32>) -> tensor<1x2x8x4xf32>
  graph.return(%2) : (tensor<1x2x8x4xf32>) -> ()
}) : () -> ()

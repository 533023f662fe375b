// RUN: tcc-opt %s --passes=fold-batch-norm,dce --split-input-file --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=fold-batch-norm{epsilon=1} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// OPTION: the pass fold-batch-norm has no option epsilon

// CHECK: graph.batch_norm{{.*}}BN_1{{.*}}the result of graph.conv has 2 users
// CHECK: graph.add{{.*}}Add_1{{.*}}graph.conv pads with zeros, which its shift must not reach
// The normalisation and the scale after it go into weights and bias.
// CHECK: ^bb0(%x: tensor<1x2x4x4xf32>):
// CHECK: %[[Y:.*]] = graph.conv(%x, %{{.*}}, %{{.*}}) {{.*}} loc("Conv_0", "BN_0", "Mul_0")
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x2x4x4xf32>):
  %w = graph.constant() {value = dense<2x2x1x1xf32: 1, 2, 3, 4>} : () -> tensor<2x2x1x1xf32>
  %a = graph.constant() {value = dense<2xf32: 1, 2>} : () -> tensor<2xf32>
  %s = graph.constant() {value = dense<2x1x1xf32: 3, 4>} : () -> tensor<2x1x1xf32>
  %0 = graph.conv(%x, %w) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x6x6xf32> loc("Conv_0")
  %1 = graph.batch_norm(%0, %a, %a, %a, %a) : (tensor<1x2x6x6xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x6x6xf32> loc("BN_0")
  %2 = graph.mul(%s, %1) : (tensor<2x1x1xf32>, tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32> loc("Mul_0")
  graph.return(%2) : (tensor<1x2x6x6xf32>) -> ()
}) : () -> ()

// -----

// A convolution whose result others use, and a shift before one that pads, are declined.
// CHECK: %[[S:.*]] = graph.add(%x, %{{.*}})
// CHECK: %[[C:.*]] = graph.conv(%[[S]], %{{.*}})
// CHECK: graph.batch_norm(%[[C]]
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
^bb0(%x: tensor<1x2x4x4xf32>):
  %w = graph.constant() {value = dense<2x2x1x1xf32: 1, 2, 3, 4>} : () -> tensor<2x2x1x1xf32>
  %a = graph.constant() {value = dense<2xf32: 1, 2>} : () -> tensor<2xf32>
  %s = graph.constant() {value = dense<2x1x1xf32: 3, 4>} : () -> tensor<2x1x1xf32>
  %0 = graph.add(%x, %s) : (tensor<1x2x4x4xf32>, tensor<2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("Add_1")
  %1 = graph.conv(%0, %w) {strides = [1, 1], pads = [1, 1, 1, 1], dilations = [1, 1]} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x6x6xf32> loc("Conv_1")
  %2 = graph.batch_norm(%1, %a, %a, %a, %a) : (tensor<1x2x6x6xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x6x6xf32> loc("BN_1")
  graph.return(%1, %2) : (tensor<1x2x6x6xf32>, tensor<1x2x6x6xf32>) -> ()
}) : () -> ()

// -----

// Without pads scale and shift before a convolution go into it.
// CHECK: ^bb0(%x: tensor<1x2x4x4xf32>):
// CHECK: %[[Y:.*]] = graph.conv(%x, %{{.*}}, %{{.*}}) {{.*}} loc("Mul_2", "Add_2", "Conv_2")
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<1x2x4x4xf32>):
  %w = graph.constant() {value = dense<2x2x1x1xf32: 1, 2, 3, 4>} : () -> tensor<2x2x1x1xf32>
  %s = graph.constant() {value = dense<2x1x1xf32: 3, 4>} : () -> tensor<2x1x1xf32>
  %0 = graph.mul(%x, %s) : (tensor<1x2x4x4xf32>, tensor<2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("Mul_2")
  %1 = graph.add(%0, %s) : (tensor<1x2x4x4xf32>, tensor<2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("Add_2")
  %2 = graph.conv(%1, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> loc("Conv_2")
  graph.return(%2) : (tensor<1x2x4x4xf32>) -> ()
}) : () -> ()

// RUN: tcc-opt %s --passes=merge-matmuls,dce --split-input-file --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=merge-matmuls{least=3} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// CHECK: graph.matmul{{.*}}MatMul_3{{.*}}kept apart: its result goes to an op that would copy its part
// OPTION: the pass merge-matmuls has no option least

// Two products on their way to attention become one, with their biases; the third one stays.
// CHECK: %[[P:.*]] = graph.matmul(%x, %{{.*}}) : (tensor<1x4x2xf32>, tensor<2x4xf32>) -> tensor<1x4x4xf32> loc("MatMul_1", "MatMul_2", "Add_1")
// CHECK: %[[B:.*]] = graph.add(%[[P]], %{{.*}}) : (tensor<1x4x4xf32>, tensor<4xf32>)
// CHECK-NEXT: %[[Q:.*]] = graph.slice(%[[B]]) {starts = [0, 0, 0], sizes = [1, 4, 2], steps = [1, 1, 1]}
// CHECK-NEXT: %[[K:.*]] = graph.slice(%[[B]]) {starts = [0, 0, 2], sizes = [1, 4, 2], steps = [1, 1, 1]}
// CHECK: graph.matmul(%x, %{{.*}}) : (tensor<1x4x2xf32>, tensor<2x2xf32>)
// CHECK: graph.attention
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
^bb0(%x: tensor<1x4x2xf32>):
  %w = graph.constant() {value = dense<2x2xf32: 1, 2, 3, 4>} : () -> tensor<2x2xf32>
  %v = graph.constant() {value = dense<2x2xf32: 5, 6, 7, 8>} : () -> tensor<2x2xf32>
  %b = graph.constant() {value = dense<2xf32: 1, 2>} : () -> tensor<2xf32>
  %0 = graph.matmul(%x, %w) : (tensor<1x4x2xf32>, tensor<2x2xf32>) -> tensor<1x4x2xf32> loc("MatMul_1")
  %1 = graph.add(%0, %b) : (tensor<1x4x2xf32>, tensor<2xf32>) -> tensor<1x4x2xf32> loc("Add_1")
  %2 = graph.matmul(%x, %v) : (tensor<1x4x2xf32>, tensor<2x2xf32>) -> tensor<1x4x2xf32> loc("MatMul_2")
  %3 = graph.matmul(%x, %v) : (tensor<1x4x2xf32>, tensor<2x2xf32>) -> tensor<1x4x2xf32> loc("MatMul_3")
  %4 = graph.relu(%3) : (tensor<1x4x2xf32>) -> tensor<1x4x2xf32>
  %5 = graph.reshape(%1) {shape = [1, 1, 4, 2]} : (tensor<1x4x2xf32>) -> tensor<1x1x4x2xf32>
  %6 = graph.reshape(%2) {shape = [1, 1, 4, 2]} : (tensor<1x4x2xf32>) -> tensor<1x1x4x2xf32>
  %7 = graph.attention(%5, %6, %6) {scale = 1.0} : (tensor<1x1x4x2xf32>, tensor<1x1x4x2xf32>, tensor<1x1x4x2xf32>) -> tensor<1x1x4x2xf32>
  graph.return(%7, %4) : (tensor<1x1x4x2xf32>, tensor<1x4x2xf32>) -> ()
}) : () -> ()

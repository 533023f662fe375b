// RUN: tcc-opt %s --passes=narrow-weights --remarks 2>&1 | filecheck %s

// Weights that an i8 or i16 holds are stored so; others stay.
// CHECK: weights in i8
// CHECK: weights in i16
// CHECK: graph.cast({{.*}}) {to = i32} : (tensor<2x3xi8>)
// CHECK: graph.cast({{.*}}) {to = i32} : (tensor<3x2xi16>)
// CHECK-NOT: graph.cast
builtin.module() {target = "cpu"} ({
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<4x2xi32>):
  %0 = graph.constant() {value = dense<2x3xi32: 1, -2, 127, -128, 5, 6>} : () -> tensor<2x3xi32>
  %1 = graph.matmul(%x, %0) : (tensor<4x2xi32>, tensor<2x3xi32>) -> tensor<4x3xi32> loc("first")
  %2 = graph.constant() {value = dense<3x2xi32: 1, -2, 3, 4, 5, 255>} : () -> tensor<3x2xi32>
  %3 = graph.matmul(%1, %2) : (tensor<4x3xi32>, tensor<3x2xi32>) -> tensor<4x2xi32> loc("second")
  %4 = graph.constant() {value = dense<2x2xi32: 1, -2, 3, 40000>} : () -> tensor<2x2xi32>
  %5 = graph.matmul(%3, %4) : (tensor<4x2xi32>, tensor<2x2xi32>) -> tensor<4x2xi32> loc("third")
  graph.return(%5) : (tensor<4x2xi32>) -> ()
}) : () -> ()
}) : () -> ()

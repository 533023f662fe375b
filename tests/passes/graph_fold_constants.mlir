// RUN: tcc-opt %s --passes=fold-constants{max-bytes=64},dce --remarks 2>&1 | filecheck %s
// RUN: tcc-opt %s --passes=fold-constants,dce | filecheck %s --check-prefix=MORE
// RUN: not tcc-opt %s --passes=fold-constants{max-bytes=many} 2>&1 | filecheck %s --check-prefix=OPTION

// Transposes and arithmetic of constants fold, dims that are numbers too; results that grow beyond the limit do not.
// CHECK: graph.expand{{.*}}Expand_0{{.*}}its result of 512 bytes is larger than its operands
// CHECK: graph.host{{.*}}Random_0{{.*}}random_normal_like gives other values at every call
// CHECK: graph.bitwise_not{{.*}}Unpack_0{{.*}}its operand is the form to keep
// CHECK: ^bb0(%x: tensor<2x3xf32>):
// CHECK-NOT: graph.transpose
// CHECK-NOT: graph.dims
// CHECK: graph.expand
// CHECK: graph.host
// Integers made wide grow beyond the limit, but else every call would make them so.
// CHECK-NOT: graph.cast
// CHECK: graph.bitwise_not{{.*}}tcc.keep = true
// CHECK: graph.return
// MORE-NOT: graph.expand
// OPTION: max-bytes
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z", "d", "r", "w", "u"]} ({
^bb0(%x: tensor<2x3xf32>):
  %0 = graph.constant() {value = dense<3x2xf32: 1, 2, 3, 4, 5, 6>} : () -> tensor<3x2xf32>
  %1 = graph.transpose(%0) {perm = [1, 0]} : (tensor<3x2xf32>) -> tensor<2x3xf32> loc("Transpose_0")
  %2 = graph.neg(%1) : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = graph.add(%x, %2) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %4 = graph.constant() {value = dense<1xf32: 1>} : () -> tensor<1xf32>
  %5 = graph.expand(%4) {shape = [128]} : (tensor<1xf32>) -> tensor<128xf32> loc("Expand_0")
  %6 = graph.dims() {values = [2, 3]} : () -> tensor<2xi64>
  %7 = graph.host(%4) {function = "random_normal_like", given = [1], types = [tensor<1xf32>]} : (tensor<1xf32>) -> tensor<1xf32> loc("Random_0")
  %8 = graph.constant() {value = dense<3x8xi8: 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8>} : () -> tensor<3x8xi8>
  %9 = graph.cast(%8) {to = i32} : (tensor<3x8xi8>) -> tensor<3x8xi32>
  %10 = graph.constant() {value = dense<2xu8: 1, 2>} : () -> tensor<2xu8>
  %11 = graph.bitwise_not(%10) {tcc.keep = true} : (tensor<2xu8>) -> tensor<2xu8> loc("Unpack_0")
  graph.return(%3, %5, %6, %7, %9, %11) : (tensor<2x3xf32>, tensor<128xf32>, tensor<2xi64>, tensor<1xf32>, tensor<3x8xi32>, tensor<2xu8>) -> ()
}) : () -> ()

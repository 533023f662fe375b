// RUN: tcc-opt %s --passes=raise-patterns,dce --no-locations | filecheck %s
// RUN: tcc-opt %s --passes=raise-patterns --remarks 2>&1 | filecheck %s --check-prefix=REMARK
// NUMERICS 1e-5: raise-patterns,dce

// CHECK-LABEL: sym_name = "main"
// CHECK: graph.layer_norm(%x, %{{.*}}, %{{.*}}) {axis = 1, epsilon = 0.001
// CHECK: graph.transpose
// CHECK: graph.attention(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) {scale = 0.25
// CHECK-NOT: graph.matmul
// CHECK: graph.return
// REMARK: graph.matmul at "mix": raise: not attention: the softmax has 2 users
builtin.module() ({
^bb0:
  graph.func() {sym_name = "main", arg_names = ["x", "q", "k", "v"], result_names = ["y", "z"]} ({
  ^bb0(%x: tensor<3x8xf32>, %q: tensor<2x5x4xf32>, %k: tensor<2x4x6xf32>, %v: tensor<2x6x3xf32>):
    %e = graph.constant() {value = dense<f32: 0.001>} : () -> tensor<f32>
    %h = graph.constant() {value = dense<f32: 0.5>} : () -> tensor<f32>
    %s = graph.constant() {value = dense<8xf32: random 1>} : () -> tensor<8xf32>
    %b = graph.constant() {value = dense<8xf32: random 2>} : () -> tensor<8xf32>
    %m = graph.constant() {value = dense<5x6xf32: random 3>} : () -> tensor<5x6xf32>
    %0 = graph.reduce(%x) {kind = "mean", axes = [1]} : (tensor<3x8xf32>) -> tensor<3x1xf32>
    %1 = graph.sub(%x, %0) : (tensor<3x8xf32>, tensor<3x1xf32>) -> tensor<3x8xf32>
    %2 = graph.mul(%1, %1) : (tensor<3x8xf32>, tensor<3x8xf32>) -> tensor<3x8xf32>
    %3 = graph.reduce(%2) {kind = "mean", axes = [1]} : (tensor<3x8xf32>) -> tensor<3x1xf32>
    %4 = graph.add(%3, %e) : (tensor<3x1xf32>, tensor<f32>) -> tensor<3x1xf32>
    %5 = graph.sqrt(%4) : (tensor<3x1xf32>) -> tensor<3x1xf32>
    %6 = graph.div(%1, %5) : (tensor<3x8xf32>, tensor<3x1xf32>) -> tensor<3x8xf32>
    %7 = graph.mul(%6, %s) : (tensor<3x8xf32>, tensor<8xf32>) -> tensor<3x8xf32>
    %8 = graph.add(%b, %7) : (tensor<8xf32>, tensor<3x8xf32>) -> tensor<3x8xf32>
    %9 = graph.mul(%q, %h) : (tensor<2x5x4xf32>, tensor<f32>) -> tensor<2x5x4xf32>
    %10 = graph.mul(%k, %h) : (tensor<2x4x6xf32>, tensor<f32>) -> tensor<2x4x6xf32>
    %11 = graph.matmul(%9, %10) : (tensor<2x5x4xf32>, tensor<2x4x6xf32>) -> tensor<2x5x6xf32>
    %12 = graph.add(%11, %m) : (tensor<2x5x6xf32>, tensor<5x6xf32>) -> tensor<2x5x6xf32>
    %13 = graph.softmax(%12) {axis = 2} : (tensor<2x5x6xf32>) -> tensor<2x5x6xf32>
    %14 = graph.matmul(%13, %v) : (tensor<2x5x6xf32>, tensor<2x6x3xf32>) -> tensor<2x5x3xf32>
    graph.return(%8, %14) : (tensor<3x8xf32>, tensor<2x5x3xf32>) -> ()
  }) : () -> ()
  graph.func() {sym_name = "declines", arg_names = ["q", "k", "v"], result_names = ["y", "z"]} ({
  ^bb0(%q: tensor<2x5x4xf32>, %k: tensor<2x4x6xf32>, %v: tensor<2x6x3xf32>):
    %0 = graph.matmul(%q, %k) : (tensor<2x5x4xf32>, tensor<2x4x6xf32>) -> tensor<2x5x6xf32>
    %1 = graph.softmax(%0) {axis = 2} : (tensor<2x5x6xf32>) -> tensor<2x5x6xf32>
    %2 = graph.matmul(%1, %v) : (tensor<2x5x6xf32>, tensor<2x6x3xf32>) -> tensor<2x5x3xf32> loc("mix")
    graph.return(%1, %2) : (tensor<2x5x6xf32>, tensor<2x5x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()

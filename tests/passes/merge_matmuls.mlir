// RUN: tcc-opt %s --passes=merge-matmuls,dce --no-locations | filecheck %s
// RUN: tcc-opt %s --passes=merge-matmuls --remarks 2>&1 | filecheck %s --check-prefix=REMARK
// NUMERICS 1e-6: merge-matmuls,dce

// CHECK-LABEL: sym_name = "main"
// CHECK: graph.matmul(%x, %{{.*}}) : (tensor<5x4xf32>, tensor<4x5xf32>) -> tensor<5x5xf32>
// CHECK: graph.add(%{{.*}}, %{{.*}}) : (tensor<5x5xf32>, tensor<5xf32>) -> tensor<5x5xf32>
// CHECK: graph.slice(%{{.*}}) {starts = [0, 0], sizes = [5, 2], steps = [1, 1]}
// CHECK: graph.slice(%{{.*}}) {starts = [0, 2], sizes = [5, 3], steps = [1, 1]}
// CHECK-LABEL: sym_name = "declines"
// CHECK: graph.matmul
// CHECK: graph.matmul
// REMARK: graph.matmul at "first": merge: kept apart: only some of the products have a bias
builtin.module() ({
^bb0:
  graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
  ^bb0(%x: tensor<5x4xf32>):
    %a = graph.constant() {value = dense<4x2xf32: random 1>} : () -> tensor<4x2xf32>
    %b = graph.constant() {value = dense<4x3xf32: random 2>} : () -> tensor<4x3xf32>
    %c = graph.constant() {value = dense<2xf32: random 3>} : () -> tensor<2xf32>
    %d = graph.constant() {value = dense<3xf32: random 4>} : () -> tensor<3xf32>
    %0 = graph.matmul(%x, %a) : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32>
    %1 = graph.add(%0, %c) : (tensor<5x2xf32>, tensor<2xf32>) -> tensor<5x2xf32>
    %2 = graph.matmul(%x, %b) : (tensor<5x4xf32>, tensor<4x3xf32>) -> tensor<5x3xf32>
    %3 = graph.add(%2, %d) : (tensor<5x3xf32>, tensor<3xf32>) -> tensor<5x3xf32>
    graph.return(%1, %3) : (tensor<5x2xf32>, tensor<5x3xf32>) -> ()
  }) : () -> ()
  graph.func() {sym_name = "declines", arg_names = ["x"], result_names = ["y", "z"]} ({
  ^bb0(%x: tensor<5x4xf32>):
    %a = graph.constant() {value = dense<4x2xf32: random 1>} : () -> tensor<4x2xf32>
    %c = graph.constant() {value = dense<2xf32: random 3>} : () -> tensor<2xf32>
    %0 = graph.matmul(%x, %a) : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32> loc("first")
    %1 = graph.add(%0, %c) : (tensor<5x2xf32>, tensor<2xf32>) -> tensor<5x2xf32>
    %2 = graph.matmul(%x, %a) : (tensor<5x4xf32>, tensor<4x2xf32>) -> tensor<5x2xf32>
    graph.return(%1, %2) : (tensor<5x2xf32>, tensor<5x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// RUN: tcc-opt %s --passes=precision --remarks 2>&1 | filecheck %s
// RUN: tcc-opt %s --passes=precision{to=tf32} | filecheck %s --check-prefix=TF32

// The option names a node by a pattern: its product stays in f32, and so does the relu after it; the next is in f16.
// CHECK: graph.matmul{{.*}}stem/MatMul_0{{.*}}f32: keep_f32 names it
// CHECK: %[[M:.*]] = graph.matmul(%x, %w) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
// CHECK-NEXT: %[[R:.*]] = graph.relu(%[[M]]) : (tensor<2x2xf32>) -> tensor<2x2xf32>
// CHECK-NEXT: %[[H:.*]] = graph.cast(%[[R]]) {to = f16}
// CHECK-NEXT: graph.matmul(%[[H]], %{{.*}}) : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>
// TF32: graph.matmul(%x, %w) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
// TF32: graph.matmul{{.*}}tcc.allow = ["tf32"]
builtin.module() {options = {keep_f32 = ["stem/*"]}} ({
  graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
  ^bb0(%x: tensor<2x2xf32>):
    %w = graph.constant() {value = dense<2x2xf32: 1, 2, 3, 4>} : () -> tensor<2x2xf32>
    %0 = graph.matmul(%x, %w) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32> loc("stem/MatMul_0")
    %1 = graph.relu(%0) : (tensor<2x2xf32>) -> tensor<2x2xf32>
    %2 = graph.matmul(%1, %w) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32> loc("MatMul_1")
    graph.return(%2) : (tensor<2x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()

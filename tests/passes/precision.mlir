// RUN: tcc-opt %s --passes=precision,dce | filecheck %s
// RUN: tcc-opt %s --passes=precision{to=tf32} | filecheck %s --check-prefix=TF32
// RUN: tcc-opt %s --passes=precision --remarks 2>&1 | filecheck %s --check-prefix=REMARK
// RUN: not tcc-opt %s --passes=precision{to=f8} 2>&1 | filecheck %s --check-prefix=BAD
// NUMERICS 0.02: precision

// CHECK: %[[X:.*]] = graph.cast(%x) {to = f16} : (tensor<2x3xf32>) -> tensor<2x3xf16>
// CHECK: %[[Y:.*]] = graph.matmul(%[[X]], %{{.*}}) : (tensor<2x3xf16>, tensor<3x4xf16>) -> tensor<2x4xf16>
// CHECK: %[[W:.*]] = graph.cast(%[[Y]]) {to = f32} : (tensor<2x4xf16>) -> tensor<2x4xf32>
// CHECK: graph.add(%[[W]], %{{.*}}) : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
// CHECK: graph.relu(%{{.*}}) : (tensor<2x4xf16>) -> tensor<2x4xf16>
// CHECK: graph.return(%{{.*}}) : (tensor<2x4xf32>) -> ()
// TF32: graph.matmul(%x, %{{.*}}) {tcc.allow = ["tf32"]}
// REMARK: graph.add at "eps": precision: f32: f16 would lose a constant of it
// BAD: precision
builtin.module() ({
^bb0:
  graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
  ^bb0(%x: tensor<2x3xf32>):
    %w = graph.constant() {value = dense<3x4xf32: random 3>} : () -> tensor<3x4xf32>
    %e = graph.constant() {value = dense<f32: 1e-12>} : () -> tensor<f32>
    %0 = graph.matmul(%x, %w) : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32> loc("product")
    %1 = graph.add(%0, %e) : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32> loc("eps")
    %2 = graph.relu(%1) : (tensor<2x4xf32>) -> tensor<2x4xf32> loc("relu")
    graph.return(%2) : (tensor<2x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()

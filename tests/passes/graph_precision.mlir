// RUN: tcc-opt %s --passes=precision --remarks 2>&1 | filecheck %s
// RUN: tcc-opt %s --passes=precision{to=tf32} | filecheck %s --check-prefix=TF32
// RUN: not tcc-opt %s --passes=precision{to=f8} 2>&1 | filecheck %s --check-prefix=OPTION
// CHECK: graph.exp{{.*}}Exp_0{{.*}}f32: graph.exp overflows or loses digits in 16 bits
// CHECK: graph.mul{{.*}}Mul_0{{.*}}f32: f16 does not hold one of its constants
// TF32: graph.matmul(%x, %w) {tcc.allow = ["tf32"]} : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
// OPTION: f16|bf16|tf32

// CHECK: ^bb0(%x: tensor<2x2xf32>, %i: tensor<2x2xi64>):
// CHECK-NEXT: %[[W:.*]] = graph.constant() {{.*}} -> tensor<2x2xf16>
// CHECK: %[[X:.*]] = graph.cast(%x) {to = f16}
// CHECK-NEXT: %[[M:.*]] = graph.matmul(%[[X]], %[[W]]) : (tensor<2x2xf16>, tensor<2x2xf16>) -> tensor<2x2xf16>
// CHECK-NEXT: %[[B:.*]] = graph.cast(%[[M]]) {to = f32}
// CHECK-NEXT: %[[E:.*]] = graph.exp(%[[B]]) : (tensor<2x2xf32>) -> tensor<2x2xf32>
// CHECK-NEXT: %[[R:.*]] = graph.relu(%[[M]]) : (tensor<2x2xf16>) -> tensor<2x2xf16>
// CHECK-NEXT: %[[S:.*]] = graph.cast(%[[R]]) {to = f32}
// CHECK-NEXT: %[[Y:.*]] = graph.relu(%[[S]]) : (tensor<2x2xf32>)
// CHECK: %[[P:.*]] = graph.mul(%[[B]], %{{.*}}) : (tensor<2x2xf32>, tensor<f32>) -> tensor<2x2xf32>
// CHECK-NEXT: %[[N:.*]] = graph.neg(%i) : (tensor<2x2xi64>) -> tensor<2x2xi64>
// CHECK-NEXT: graph.return(%[[E]], %[[Y]], %[[P]], %[[N]])
graph.func() {sym_name = "main", arg_names = ["x", "i"], result_names = ["e", "y", "p", "n"]} ({
^bb0(%x: tensor<2x2xf32>, %i: tensor<2x2xi64>):
  %w = graph.constant() {value = dense<2x2xf32: 1, 2, 3, 4>} : () -> tensor<2x2xf32>
  %c = graph.constant() {value = dense<f32: 1e6>} : () -> tensor<f32>
  %0 = graph.matmul(%x, %w) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  %1 = graph.exp(%0) : (tensor<2x2xf32>) -> tensor<2x2xf32> loc("Exp_0")
  %2 = graph.relu(%0) : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %3 = graph.relu(%2) : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %4 = graph.mul(%0, %c) : (tensor<2x2xf32>, tensor<f32>) -> tensor<2x2xf32> loc("Mul_0")
  %5 = graph.neg(%i) : (tensor<2x2xi64>) -> tensor<2x2xi64>
  graph.return(%1, %3, %4, %5) : (tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x2xi64>) -> ()
}) : () -> ()

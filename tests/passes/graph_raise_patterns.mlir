// RUN: tcc-opt %s --passes=raise-patterns,canonicalize,dce --split-input-file --remarks 2>&1 | filecheck %s
// RUN: not tcc-opt %s --passes=raise-patterns{only=gelu} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// CHECK: graph.softmax{{.*}}Softmax_9{{.*}}not made attention: its scores are scaled after the mask
// CHECK: graph.mul{{.*}}Mul_9{{.*}}not made gelu: a value inside is also used by graph.return
// OPTION: the pass raise-patterns has no option only

// Attention with the scale on q, behind the transposes, and a mask.
// CHECK: ^bb0(%q: tensor<1x2x4x8xf32>, %k: tensor<1x2x4x8xf32>, %v: tensor<1x2x4x8xf32>, %m: tensor<1x1x1x4xf32>):
// CHECK-NEXT: %[[Y:.*]] = graph.attention(%q, %k, %v, %m) {scale = 0.125} : {{.*}} loc("MatMul_1")
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["q", "k", "v", "m"], result_names = ["y"]} ({
^bb0(%q: tensor<1x2x4x8xf32>, %k: tensor<1x2x4x8xf32>, %v: tensor<1x2x4x8xf32>, %m: tensor<1x1x1x4xf32>):
  %c = graph.constant() {value = dense<f32: 0.25>} : () -> tensor<f32>
  %d = graph.constant() {value = dense<f32: 2>} : () -> tensor<f32>
  %0 = graph.mul(%q, %c) : (tensor<1x2x4x8xf32>, tensor<f32>) -> tensor<1x2x4x8xf32>
  %1 = graph.transpose(%k) {perm = [0, 1, 3, 2]} : (tensor<1x2x4x8xf32>) -> tensor<1x2x8x4xf32>
  %2 = graph.matmul(%0, %1) : (tensor<1x2x4x8xf32>, tensor<1x2x8x4xf32>) -> tensor<1x2x4x4xf32>
  %3 = graph.div(%2, %d) : (tensor<1x2x4x4xf32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %4 = graph.add(%3, %m) : (tensor<1x2x4x4xf32>, tensor<1x1x1x4xf32>) -> tensor<1x2x4x4xf32>
  %5 = graph.softmax(%4) {axis = 3} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %6 = graph.matmul(%5, %v) : (tensor<1x2x4x4xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32> loc("MatMul_1")
  graph.return(%6) : (tensor<1x2x4x8xf32>) -> ()
}) : () -> ()

// -----

// A mask that is scaled with the scores is none.
// CHECK: graph.matmul
// CHECK: graph.softmax
// CHECK: graph.matmul
graph.func() {sym_name = "main", arg_names = ["q", "m"], result_names = ["y"]} ({
^bb0(%q: tensor<1x2x4x8xf32>, %m: tensor<1x1x1x4xf32>):
  %c = graph.constant() {value = dense<f32: 0.25>} : () -> tensor<f32>
  %1 = graph.transpose(%q) {perm = [0, 1, 3, 2]} : (tensor<1x2x4x8xf32>) -> tensor<1x2x8x4xf32>
  %2 = graph.matmul(%q, %1) : (tensor<1x2x4x8xf32>, tensor<1x2x8x4xf32>) -> tensor<1x2x4x4xf32>
  %3 = graph.add(%2, %m) : (tensor<1x2x4x4xf32>, tensor<1x1x1x4xf32>) -> tensor<1x2x4x4xf32>
  %4 = graph.mul(%3, %c) : (tensor<1x2x4x4xf32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %5 = graph.softmax(%4) {axis = 3} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> loc("Softmax_9")
  %6 = graph.matmul(%5, %q) : (tensor<1x2x4x4xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32>
  graph.return(%6) : (tensor<1x2x4x8xf32>) -> ()
}) : () -> ()

// -----

// Layer norm spelled out, with its scale and shift; then gelu spelled with erf.
// CHECK: ^bb0(%x: tensor<3x4xf32>):
// CHECK: %[[N:.*]] = graph.layer_norm(%x, %[[G:.*]], %[[B:.*]]) {axis = 1, epsilon = {{9.99.*e-06}}
// CHECK: %[[Y:.*]] = graph.gelu(%[[N]])
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<3x4xf32>):
  %g = graph.constant() {value = dense<4xf32: 1, 2, 3, 4>} : () -> tensor<4xf32>
  %b = graph.constant() {value = dense<4xf32: 5, 6, 7, 8>} : () -> tensor<4xf32>
  %e = graph.constant() {value = dense<f32: 1e-5>} : () -> tensor<f32>
  %two = graph.constant() {value = dense<f32: 2>} : () -> tensor<f32>
  %r = graph.constant() {value = dense<f32: 1.4142135381698608>} : () -> tensor<f32>
  %one = graph.constant() {value = dense<f32: 1>} : () -> tensor<f32>
  %half = graph.constant() {value = dense<f32: 0.5>} : () -> tensor<f32>
  %0 = graph.reduce(%x) {kind = "mean", axes = [1]} : (tensor<3x4xf32>) -> tensor<3x1xf32>
  %1 = graph.sub(%x, %0) : (tensor<3x4xf32>, tensor<3x1xf32>) -> tensor<3x4xf32>
  %2 = graph.pow(%1, %two) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %3 = graph.reduce(%2) {kind = "mean", axes = [1]} : (tensor<3x4xf32>) -> tensor<3x1xf32>
  %4 = graph.add(%3, %e) : (tensor<3x1xf32>, tensor<f32>) -> tensor<3x1xf32>
  %5 = graph.sqrt(%4) : (tensor<3x1xf32>) -> tensor<3x1xf32>
  %6 = graph.div(%1, %5) : (tensor<3x4xf32>, tensor<3x1xf32>) -> tensor<3x4xf32>
  %7 = graph.mul(%6, %g) : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %8 = graph.add(%7, %b) : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %9 = graph.div(%8, %r) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %10 = graph.erf(%9) : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %11 = graph.add(%10, %one) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %12 = graph.mul(%8, %11) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %13 = graph.mul(%12, %half) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  graph.return(%13) : (tensor<3x4xf32>) -> ()
}) : () -> ()

// -----

// A value inside that others use keeps the spelling.
// CHECK: graph.erf
// CHECK-NOT: graph.gelu
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
^bb0(%x: tensor<3x4xf32>):
  %r = graph.constant() {value = dense<f32: 0.7071067690849304>} : () -> tensor<f32>
  %one = graph.constant() {value = dense<f32: 1>} : () -> tensor<f32>
  %half = graph.constant() {value = dense<f32: 0.5>} : () -> tensor<f32>
  %9 = graph.mul(%x, %r) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %10 = graph.erf(%9) : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %11 = graph.add(%10, %one) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %12 = graph.mul(%11, %half) : (tensor<3x4xf32>, tensor<f32>) -> tensor<3x4xf32>
  %13 = graph.mul(%x, %12) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32> loc("Mul_9")
  graph.return(%13, %12) : (tensor<3x4xf32>, tensor<3x4xf32>) -> ()
}) : () -> ()

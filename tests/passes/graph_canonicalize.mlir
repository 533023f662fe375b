// RUN: tcc-opt %s --passes=canonicalize,dce --split-input-file | filecheck %s
// RUN: not tcc-opt %s --passes=canonicalize{limit=3} --split-input-file 2>&1 | filecheck %s --check-prefix=OPTION
// OPTION: the pass canonicalize has no option limit

// Identities go; scalar constants stand on the right and merge.
// CHECK: ^bb0(%x: tensor<2x3xf32>):
// CHECK-NEXT: %[[C:.*]] = graph.constant()
// CHECK-NEXT: %[[Y:.*]] = graph.add(%x, %[[C]])
// CHECK-NEXT: graph.return(%[[Y]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<2x3xf32>):
  %zero = graph.constant() {value = dense<f32: 0>} : () -> tensor<f32>
  %one = graph.constant() {value = dense<f32: 1>} : () -> tensor<f32>
  %two = graph.constant() {value = dense<f32: 2>} : () -> tensor<f32>
  %0 = graph.add(%zero, %x) : (tensor<f32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = graph.mul(%0, %one) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %2 = graph.add(%two, %1) : (tensor<f32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = graph.sub(%2, %one) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %4 = graph.transpose(%3) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %5 = graph.transpose(%4) {perm = [1, 0]} : (tensor<3x2xf32>) -> tensor<2x3xf32>
  %6 = graph.reshape(%5) {shape = [3, 2]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %7 = graph.reshape(%6) {shape = [2, 3]} : (tensor<3x2xf32>) -> tensor<2x3xf32>
  graph.return(%7) : (tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// A division by a power of two is a product; by another number it stays. min of max is a clip; x ** 2 is x · x.
// CHECK: %[[A:.*]] = graph.mul(%x, %{{.*}})
// CHECK-NEXT: %[[B:.*]] = graph.div(%[[A]], %{{.*}})
// CHECK-NEXT: %[[C:.*]] = graph.clip(%[[B]]) {lo = 0.0, hi = 6.0}
// CHECK-NEXT: %[[D:.*]] = graph.mul(%[[C]], %[[C]])
// CHECK-NEXT: graph.return(%[[D]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<2x3xf32>):
  %two = graph.constant() {value = dense<f32: 2>} : () -> tensor<f32>
  %three = graph.constant() {value = dense<f32: 3>} : () -> tensor<f32>
  %six = graph.constant() {value = dense<f32: 6>} : () -> tensor<f32>
  %0 = graph.div(%x, %two) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %1 = graph.div(%0, %three) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %2 = graph.relu(%1) : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = graph.min(%2, %six) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %4 = graph.pow(%3, %two) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  graph.return(%4) : (tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// A sum with other users is not merged into the next: it is needed as it is.
// CHECK: %[[A:.*]] = graph.add(%x, %[[C:.*]])
// CHECK-NEXT: %[[B:.*]] = graph.add(%[[A]], %[[C]])
// CHECK-NEXT: graph.return(%[[A]], %[[B]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z"]} ({
^bb0(%x: tensor<2x3xf32>):
  %two = graph.constant() {value = dense<f32: 2>} : () -> tensor<f32>
  %0 = graph.add(%x, %two) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  %1 = graph.add(%0, %two) : (tensor<2x3xf32>, tensor<f32>) -> tensor<2x3xf32>
  graph.return(%0, %1) : (tensor<2x3xf32>, tensor<2x3xf32>) -> ()
}) : () -> ()

// -----

// Zeros around the picture become pads of the convolution; ones do not. A slice of one part of a concat is of that part.
// CHECK: %[[A:.*]] = graph.conv(%x, %[[W:.*]]) {strides = [1, 1], pads = [1, 2, 1, 0], dilations = [1, 1]}
// CHECK-NEXT: %[[P:.*]] = graph.pad(%x) {before = [0, 0, 1, 1], after = [0, 0, 1, 1], value = 1.0
// CHECK-NEXT: %[[B:.*]] = graph.conv(%[[P]], %[[W]])
// CHECK-NEXT: %[[S:.*]] = graph.slice(%x) {starts = [0, 1, 0, 0], sizes = [1, 1, 4, 4], steps = [1, 1, 1, 1]}
// CHECK-NEXT: graph.return(%[[A]], %[[B]], %[[S]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y", "z", "s"]} ({
^bb0(%x: tensor<1x2x4x4xf32>):
  %w = graph.constant() {value = dense<1x2x1x1xf32: 1, 2>} : () -> tensor<1x2x1x1xf32>
  %0 = graph.pad(%x) {before = [0, 0, 1, 1], after = [0, 0, 1, 0]} : (tensor<1x2x4x4xf32>) -> tensor<1x2x6x5xf32>
  %1 = graph.conv(%0, %w) {strides = [1, 1], pads = [0, 1, 0, 0], dilations = [1, 1]} : (tensor<1x2x6x5xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x6x6xf32>
  %2 = graph.pad(%x) {before = [0, 0, 1, 1], after = [0, 0, 1, 1], value = 1.0} : (tensor<1x2x4x4xf32>) -> tensor<1x2x6x6xf32>
  %3 = graph.conv(%2, %w) {strides = [1, 1], pads = [0, 0, 0, 0], dilations = [1, 1]} : (tensor<1x2x6x6xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x6x6xf32>
  %4 = graph.concat(%x, %x) {axis = 1} : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32>
  %5 = graph.constant() {value = dense<1xi64: 3>} : () -> tensor<1xi64>
  %6 = graph.gather(%4, %5) {axis = 1} : (tensor<1x4x4x4xf32>, tensor<1xi64>) -> tensor<1x1x4x4xf32>
  graph.return(%1, %3, %6) : (tensor<1x1x6x6xf32>, tensor<1x1x6x6xf32>, tensor<1x1x4x4xf32>) -> ()
}) : () -> ()

// -----

// A branch whose condition is known stands in place of the op.
// CHECK: ^bb0(%x: tensor<4xf32>):
// CHECK-NEXT: %[[N:.*]] = graph.neg(%x)
// CHECK-NEXT: graph.return(%[[N]])
graph.func() {sym_name = "main", arg_names = ["x"], result_names = ["y"]} ({
^bb0(%x: tensor<4xf32>):
  %c = graph.constant() {value = dense<i1: true>} : () -> tensor<i1>
  %0 = graph.if(%c) ({
  ^bb0:
    %1 = graph.neg(%x) : (tensor<4xf32>) -> tensor<4xf32>
    graph.yield(%1) : (tensor<4xf32>) -> ()
  }, {
  ^bb0:
    graph.yield(%x) : (tensor<4xf32>) -> ()
  }) : (tensor<i1>) -> tensor<4xf32>
  graph.return(%0) : (tensor<4xf32>) -> ()
}) : () -> ()

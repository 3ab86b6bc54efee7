;; y = x W^T + b for T rows of x, four outputs at a time, in double precision: x and y are f64, W and b are f32.
;;
;; W lies in blocks of four outputs: block, then input, then the four weights from this input to these outputs. So one
;; input is multiplied into four sums at once and no sum has to be gathered. All addresses count bytes; inputs is a
;; multiple of two, and the caller fills up the last block with zeros.
(module
  (import "js" "memory" (memory 1))
  (func (export "linear")
    (param $w i32) (param $bias i32) (param $x i32) (param $y i32) (param $T i32) (param $inputs i32) (param $blocks i32)
    (local $wi i32) (local $bi i32) (local $xi i32) (local $end i32) (local $left i32)
    (local $v v128) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (loop $rows
      (local.set $wi (local.get $w))
      (local.set $bi (local.get $bias))
      (local.set $left (local.get $blocks))
      (local.set $end (i32.add (local.get $x) (i32.shl (local.get $inputs) (i32.const 3))))
      (loop $outputs
        (local.set $a (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $bi))))
        (local.set $b (f64x2.promote_low_f32x4 (v128.load64_zero offset=8 (local.get $bi))))
        (local.set $c (v128.const f64x2 0 0))              ;; two sums for each output: a processor adds both at once
        (local.set $d (v128.const f64x2 0 0))
        (local.set $xi (local.get $x))
        (loop $inputs
          (local.set $v (v128.load64_splat (local.get $xi)))
          (local.set $a (f64x2.add (local.get $a)
            (f64x2.mul (local.get $v) (f64x2.promote_low_f32x4 (v128.load64_zero (local.get $wi))))))
          (local.set $b (f64x2.add (local.get $b)
            (f64x2.mul (local.get $v) (f64x2.promote_low_f32x4 (v128.load64_zero offset=8 (local.get $wi))))))
          (local.set $v (v128.load64_splat offset=8 (local.get $xi)))
          (local.set $c (f64x2.add (local.get $c)
            (f64x2.mul (local.get $v) (f64x2.promote_low_f32x4 (v128.load64_zero offset=16 (local.get $wi))))))
          (local.set $d (f64x2.add (local.get $d)
            (f64x2.mul (local.get $v) (f64x2.promote_low_f32x4 (v128.load64_zero offset=24 (local.get $wi))))))
          (local.set $xi (i32.add (local.get $xi) (i32.const 16)))
          (local.set $wi (i32.add (local.get $wi) (i32.const 32)))
          (br_if $inputs (i32.lt_u (local.get $xi) (local.get $end))))
        (v128.store (local.get $y) (f64x2.add (local.get $a) (local.get $c)))
        (v128.store offset=16 (local.get $y) (f64x2.add (local.get $b) (local.get $d)))
        (local.set $y (i32.add (local.get $y) (i32.const 32)))
        (local.set $bi (i32.add (local.get $bi) (i32.const 16)))
        (br_if $outputs (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $x (local.get $end))
      (br_if $rows (local.tee $T (i32.sub (local.get $T) (i32.const 1)))))))

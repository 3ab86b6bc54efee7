;; y = x W^T + b for T rows of x, four outputs at a time.
;;
;; W lies in blocks of four outputs: block, then input, then the four weights from this input to these outputs. So one
;; input is multiplied into four sums at once and no sum has to be gathered. All addresses count bytes; inputs is a
;; multiple of four, and the caller fills up the last block with zeros.
(module
  (import "js" "memory" (memory 1))
  (func (export "linear")
    (param $w i32) (param $bias i32) (param $x i32) (param $y i32) (param $T i32) (param $inputs i32) (param $blocks i32)
    (local $wi i32) (local $bi i32) (local $xi i32) (local $end i32) (local $left i32) (local $a v128) (local $b v128)
    (loop $rows
      (local.set $wi (local.get $w))
      (local.set $bi (local.get $bias))
      (local.set $left (local.get $blocks))
      (local.set $end (i32.add (local.get $x) (i32.shl (local.get $inputs) (i32.const 2))))
      (loop $outputs
        (local.set $a (v128.load (local.get $bi)))
        (local.set $b (v128.const f32x4 0 0 0 0))          ;; two sums: a processor adds both at once
        (local.set $xi (local.get $x))
        (loop $inputs
          (local.set $a (f32x4.add (local.get $a)
            (f32x4.mul (v128.load32_splat (local.get $xi)) (v128.load (local.get $wi)))))
          (local.set $b (f32x4.add (local.get $b)
            (f32x4.mul (v128.load32_splat offset=4 (local.get $xi)) (v128.load offset=16 (local.get $wi)))))
          (local.set $a (f32x4.add (local.get $a)
            (f32x4.mul (v128.load32_splat offset=8 (local.get $xi)) (v128.load offset=32 (local.get $wi)))))
          (local.set $b (f32x4.add (local.get $b)
            (f32x4.mul (v128.load32_splat offset=12 (local.get $xi)) (v128.load offset=48 (local.get $wi)))))
          (local.set $xi (i32.add (local.get $xi) (i32.const 16)))
          (local.set $wi (i32.add (local.get $wi) (i32.const 64)))
          (br_if $inputs (i32.lt_u (local.get $xi) (local.get $end))))
        (v128.store (local.get $y) (f32x4.add (local.get $a) (local.get $b)))
        (local.set $y (i32.add (local.get $y) (i32.const 16)))
        (local.set $bi (i32.add (local.get $bi) (i32.const 16)))
        (br_if $outputs (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (local.set $x (local.get $end))
      (br_if $rows (local.tee $T (i32.sub (local.get $T) (i32.const 1)))))))

//! Many rows as several products of few.

use burn::tensor::Tensor;

/// The `product` of all rows of `x`, of at most `size` at a time; `None` if it is that of any of them.
///
/// # Shapes
/// - `x`: `[rows, in]`; returns `[rows, out]`
/// - `product`: from `[1 to size, in]` to `[the same, out]`
pub(crate) fn in_groups(
    x: &Tensor<2>,
    size: usize,
    product: impl Fn(Tensor<2>) -> Option<Tensor<2>>,
) -> Option<Tensor<2>> {
    let [rows, _] = x.dims();
    if rows <= size {
        return product(x.clone());
    }
    let firsts = (0..rows).step_by(size);
    let group = |first| product(x.clone().narrow(0, first, size.min(rows - first)));
    Some(Tensor::cat(firsts.map(group).collect::<Option<Vec<_>>>()?, 0))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use burn::tensor::Device;

    use super::*;
    use crate::device::{download, upload};

    #[test]
    fn rows_go_in_their_order_and_few_at_a_time() {
        let device = Device::flex();
        for (rows, expect) in [(1, vec![1]), (4, vec![4]), (5, vec![4, 1]), (12, vec![4, 4, 4])] {
            let x = upload((0..3 * rows).map(|i| i as f32).collect(), [rows, 3], &device);
            let seen = RefCell::new(Vec::new());
            let product = |x: Tensor<2>| {
                seen.borrow_mut().push(x.dims()[0]);
                Some(x.narrow(1, 1, 2).mul_scalar(2.0))
            };
            let y = in_groups(&x, 4, product).expect("there is a product");
            assert_eq!(y.dims(), [rows, 2]);
            let doubled = (0..rows).flat_map(|row| [3 * row + 1, 3 * row + 2]);
            let doubled: Vec<f32> = doubled.map(|value| 2.0 * value as f32).collect();
            assert_eq!(download(y).expect("reads"), doubled);
            assert_eq!(seen.into_inner(), expect);
        }
        let x = upload(vec![0.0; 12], [6, 2], &device);
        assert!(in_groups(&x, 4, |x| (x.dims()[0] == 4).then_some(x)).is_none());
    }
}

//! A LoRA of arbitrary bytes is refused with an error, or it is applied or refused by a network; never a
//! panic.
#![no_main]

use std::io::Write as _;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use libfuzzer_sys::fuzz_target;
use neurino_diffusion::lora::{Layer, Lora, LowRankLayers, Part, Placement, set_loras};
use neurino_nn::conv::Padding;
use neurino_nn::{Affine, Conv2d, Linear};

/// A linear layer and a convolution.
struct Network {
    linear: Affine,
    conv: Conv2d,
    placement: Placement,
}

impl LowRankLayers for Network {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        visit("down_blocks.0.attentions.0.proj_in", Layer::Affine(&mut self.linear));
        visit("single_transformer_blocks.0.attn.to_q", Layer::Affine(&mut self.linear));
        visit("norm_out.linear", Layer::Affine(&mut self.linear));
        visit("down_blocks.0.resnets.0.conv1", Layer::Conv(&mut self.conv));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("a temporary file can be written");
    let Ok(lora) = Lora::open(file.path()) else { return };
    let device = Device::flex();
    let mut network = Network {
        linear: Affine::new(Linear::dense(Tensor::zeros([4, 4], &device)), None),
        conv: Conv2d::new(Tensor::zeros([4, 4, 3, 3], &device), None, 1, Padding::same(1)),
        placement: Placement { device: device.clone(), dtype: DType::F32 },
    };
    let lora = Arc::new(lora);
    let _ = lora.check_parts(&[Part::Denoiser]);
    if set_loras(&mut network, Part::Denoiser, &[(lora, 0.5)]).is_ok() {
        network.linear.forward(Tensor::<2>::ones([1, 4], &device));
        network.conv.forward(Tensor::ones([1, 3, 3, 4], &device));
    }
});

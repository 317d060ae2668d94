//! Which instructions the processor has.

use std::sync::OnceLock;

/// Instruction sets, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512Vbmi,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonMatrix,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    Portable,
}

impl Instructions {
    /// The best that this processor has, or what the environment variable `BURN_QUANT_INSTRUCTIONS` names.
    pub(super) fn best() -> Self {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        *BEST.get_or_init(|| {
            let mut available = Self::available();
            match std::env::var("BURN_QUANT_INSTRUCTIONS") {
                Err(_) => available.next().expect("any processor is portable"),
                Ok(name) => available.find(|found| found.name() == name).unwrap_or_else(|| {
                    let names: Vec<_> = Self::available().map(Self::name).collect();
                    panic!("BURN_QUANT_INSTRUCTIONS is \"{name}\", expected one of this processor's: {names:?}")
                }),
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vbmi => "avx512vbmi",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonMatrix => "i8mm",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "dotprod",
            Self::Portable => "portable",
        }
    }

    /// Those that this processor has.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let found = {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni");
            [
                (Self::Avx512Vbmi, avx512 && has!("avx512vbmi")),
                (Self::Avx512, avx512),
                (Self::AvxVnni, avx2 && has!("avxvnni")),
                (Self::Avx2, avx2),
                (Self::Portable, true),
            ]
        };
        #[cfg(target_arch = "aarch64")]
        let found = {
            use std::arch::is_aarch64_feature_detected as has;
            [
                (Self::NeonMatrix, has!("dotprod") && has!("i8mm")),
                (Self::NeonDot, has!("dotprod")),
                (Self::Portable, true),
            ]
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let found = [(Self::Portable, true)];
        found.into_iter().filter(|(_, has)| *has).map(|(instructions, _)| instructions)
    }
}

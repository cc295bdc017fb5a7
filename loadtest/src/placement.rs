//! On which cores of a router that was started the parties of a work live.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The cores of parties that are alike, in turn: the first party lives on the first of them, and so on. Numbers of targets
/// ([`crate::stage::Stage::targets`]): 0 leaves it to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cores(Vec<u8>);

impl Cores {
    /// Whichever core the kernel hands a connection to.
    pub(crate) fn any() -> Self {
        Self(vec![0])
    }

    /// All of them on one core.
    pub(crate) fn one(core: u8) -> Self {
        Self(vec![core + 1])
    }

    /// Where the party of this number connects to.
    pub(crate) fn target(&self, number: usize) -> u8 {
        self.0.get(number % self.0.len().max(1)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0[..] {
            [0] => f.write_str("any core"),
            [target] => write!(f, "core {}", target - 1),
            _ => {
                let cores: Vec<_> = self.0.iter().map(|target| (target - 1).to_string()).collect();
                write!(f, "cores {} in turn", cores.join(", "))
            }
        }
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "any" {
            return Ok(Self::any());
        }
        let target =
            |core: &str| match core {
                "0" => Ok(1),
                "1" => Ok(2),
                _ => Err("cores are any, 0 or 1, or a list such as 0,0,1,1 that is gone through in turn"
                    .to_owned()),
            };
        text.split(',').map(target).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_take_the_cores_in_turn() {
        let cores: Cores = "0,0,1".parse().unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5].map(|number| cores.target(number)), [1, 1, 2, 1, 1, 2]);
        assert_eq!(cores.to_string(), "cores 0, 0, 1 in turn");
        assert_eq!("1".parse::<Cores>().unwrap(), Cores::one(1));
        assert_eq!(
            (Cores::one(1).to_string(), Cores::any().to_string()),
            ("core 1".into(), "any core".into())
        );
        assert_eq!("any".parse::<Cores>().unwrap().target(7), 0);
        for wrong in ["", "2", "0,", "0,any", "-1"] {
            assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
        }
    }
}

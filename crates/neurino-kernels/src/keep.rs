//! Where CubeCL keeps what it found out about a card.

use std::path::Path;

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Has CubeCL keep what it tunes and compiles in the file `name` below `folder`, and takes its other settings
/// from itself and its variables: no file of the folder that a program happens to be started in has a say.
/// `false` if CubeCL was in use already, which changes nothing then.
pub fn keep_in(folder: &Path, name: &str) -> bool {
    let mut config = CubeClRuntimeConfig::default().override_from_env();
    config.environment.path = CacheConfig::Directory(folder.to_owned());
    name.clone_into(&mut config.environment.name);
    // CubeCL finds a kernel again by its definition, the card's architecture and the program's build.
    #[cfg(feature = "persistence")]
    {
        config.compilation.cache = true;
    }
    CubeClRuntimeConfig::try_set(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_choice_of_a_process_holds() {
        assert!(keep_in(Path::new("/somewhere/tuning"), "card_driver_build"));
        assert!(!keep_in(Path::new("/elsewhere"), "another"));
        let config = CubeClRuntimeConfig::get();
        assert_eq!(config.environment.name, "card_driver_build");
        let path = cubecl::environment::path();
        assert_eq!(path, Path::new("/somewhere/tuning/card_driver_build.db"));
        #[cfg(feature = "persistence")]
        assert!(config.compilation.cache);
    }
}

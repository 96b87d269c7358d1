//! The program on the real system: each case in a process of its own, after which no frame may be missing.
#![cfg_attr(target_os = "none", no_std, no_main)]

use user_apps::scenario::server::status;

user_apps::scenarios![who_is_named_is_well, nobody_is_an_error];

fn who_is_named_is_well() {
    assert_eq!(status("/bin/greet", &["Ada", "Grace"]), 0);
}

fn nobody_is_an_error() {
    assert_eq!(status("/bin/greet", &[]), 2);
}

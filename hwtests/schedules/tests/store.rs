//! Every harness, a few runs each from a fixed seed. `SHUTTLE_ITERATIONS` asks for more, `SHUTTLE_RANDOM_SEED` for
//! others.

use schedules::explore::{check_determined, explore_all};
use schedules::harnesses::{ALL, named};

fn run(name: &str) {
    let harness = named(name).expect("a harness of that name");
    let iterations = match std::env::var("SHUTTLE_ITERATIONS") {
        Ok(text) => text.parse().expect("SHUTTLE_ITERATIONS is a number"),
        Err(_) => harness.iterations,
    };
    explore_all(harness, 1, iterations);
}

macro_rules! harnesses {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_harness_is_a_test() {
            let tested = [$(stringify!($name)),*];
            let named: Vec<&str> = ALL.iter().map(|harness| harness.name).collect();
            assert_eq!(tested[..], named[..]);
        }
    };
}

harnesses!(same_keys journal impatient reclaim overwrite listing bulk pools_of_one flush close power);

#[test]
fn the_schedule_alone_decides_a_run() {
    for harness in ALL {
        check_determined(harness, 2, 20);
    }
}

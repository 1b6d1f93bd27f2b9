//! Random commands against a plain model, with crashes and lost devices in between: the same outcomes,
//! the same rows, the same bytes; and every stripe that was ever brought is referred to exactly once
//! until it is freed.

mod world;

use base::SeededEntropy;
use world::World;

fn run(seed: u64, groups: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let entropy = SeededEntropy::new(seed);
        let mut world = World::new(entropy.clone()).await;
        for group in 0..groups {
            let context = format!("seed {seed}, group {group}");
            world.submit_some(&context).await;
            if entropy.one_in(10) {
                world.partition.checkpoint().await.expect(&context);
            }
            if entropy.one_in(12) {
                world.check(&context).await;
                world.crash(&context).await;
                world.check(&context).await;
            }
        }
        world.check(&format!("seed {seed}, the end")).await;
        assert!(world.probes.iter().all(|(_, count)| *count > 0) || groups < 200, "not reached: {:?}", world.probes);
    });
}

#[test]
fn random_commands_agree_with_the_model() {
    for seed in 1..=8 {
        run(seed, 60);
    }
}

#[test]
fn a_long_run_reaches_every_outcome() {
    run(100, 600);
}

//! Every seed and every input that once broke a law, through its target.

use std::fs;
use std::path::Path;

#[test]
fn seeds_and_regressions_break_no_law() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for (target, check) in fuzz::TARGETS {
        for room in ["corpus", "regressions"] {
            let Ok(files) = fs::read_dir(root.join(room).join(target)) else { continue };
            let mut files: Vec<_> = files.map(|file| file.expect("a directory").path()).collect();
            files.sort();
            for file in files {
                println!("{}", file.display());
                check(&fs::read(&file).expect("a file"));
                ran += 1;
            }
        }
    }
    assert!(ran >= fuzz::TARGETS.len(), "every target has a seed");
}

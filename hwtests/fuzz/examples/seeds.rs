//! Writes the seeds below `corpus/` of the current directory; what else lies there stays.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, name, bytes) in fuzz::seeds::all() {
        let dir = Path::new("corpus").join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

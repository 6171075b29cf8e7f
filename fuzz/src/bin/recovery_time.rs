//! `recovery_time DIRECTORY [MIB...]`: how long recovery takes, by the size of the journal.

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("name the directory to write in")?;
    let sizes: Result<Vec<u64>, _> = arguments.map(|size| size.parse()).collect();
    let mut sizes = sizes.map_err(|error| format!("a size in MiB: {error}"))?;
    if sizes.is_empty() {
        sizes = vec![64, 512, 2048];
    }
    sluice_fuzz::measure::recovery(std::path::Path::new(&directory), &sizes)
}

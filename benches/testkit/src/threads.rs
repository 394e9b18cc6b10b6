//! Which threads a process has.

use std::fs;

/// Names of all threads of this process, as `/proc` has them: at most fifteen bytes each. None without `/proc`.
#[must_use]
pub fn thread_names() -> Vec<String> {
    // Who ends meanwhile has no name.
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::Builder;

    #[test]
    fn a_thread_is_listed_while_it_runs() {
        let has = || thread_names().iter().any(|name| name == "listed");
        Builder::new().name("listed".into()).spawn(move || assert!(has())).unwrap().join().unwrap();
        assert!(!has());
    }
}

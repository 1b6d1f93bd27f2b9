//! Panics as results: the message and its place, and nothing on the terminal.

use std::cell::RefCell;
use std::panic::{self, UnwindSafe};
use std::sync::Once;

thread_local! {
    /// While set, a panic of this thread is kept here instead of being printed.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; a panic inside becomes its message.
///
/// # Errors
/// The panic's message.
pub fn catch<T>(work: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let kept = CAUGHT.try_with(|caught| {
                caught.try_borrow_mut().is_ok_and(|mut caught| {
                    caught.as_mut().is_some_and(|text| {
                        // The first says why; those that follow are its consequences.
                        if text.is_empty() {
                            *text = info.to_string().replace('\n', " ");
                        }
                        true
                    })
                })
            });
            if kept != Ok(true) {
                usual(info);
            }
        }));
    });
    CAUGHT.set(Some(String::new()));
    let done = panic::catch_unwind(work);
    let text = CAUGHT.take().unwrap_or_default();
    done.map_err(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_its_message() {
        assert_eq!(catch(|| 5), Ok(5));
        let text = catch(|| panic!("the {} failed", "thing")).expect_err("it panicked");
        assert!(text.contains("the thing failed") && text.contains("guard.rs"), "{text}");
    }
}

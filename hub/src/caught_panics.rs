//! A panic that a library expects and catches.
//!
//! When the last step of an upload fails (a full disk, storage that is away), deltalake tries to abort it, which by
//! `object_store`'s design is a panic by then; deltalake catches that and passes the error on. A panic and a backtrace in the
//! operator's log would tell of a fault where there is none: the commit is tried again, and the log says why.

use std::panic::{self, PanicHookInfo};

/// Has the log tell of it only where debugging is on. Whatever else panics is reported as before.
///
/// `object_store` has the same words where somebody writes after the end; deltalake does not, and whoever did would get an error
/// of the task.
pub fn leave_out_of_the_log() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if is_caught(panic) {
            tracing::debug!("an upload that had failed could not be aborted: {panic}");
        } else {
            report(panic);
        }
    }));
}

fn is_caught(panic: &PanicHookInfo<'_>) -> bool {
    let of_the_writer = panic.location().is_some_and(|place| {
        let file = place.file();
        file.contains("/object_store-") && file.ends_with("/src/buffered.rs")
    });
    of_the_writer && panic.payload_as_str() == Some("Already shut down")
}

//! The ClickHouse host: a small process that loads ClickHouse as a library and becomes a server.
//!
//! The library's command line session opens the HTTP and native listeners by SQL and then counts slowly for ever; the
//! server lives as long as that session. SIGTERM ends it in order.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use crate::hook::bind_to_parent;

/// Opens the listeners, then sleeps three seconds a row without end.
const SESSION: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; \
    SELECT sleepEachRow(3) FROM system.numbers \
    SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=3000000000 FORMAT Null";

type QueryCmdline = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;

/// `PARENT LIBRARY CONFIG`: runs the server; returns the exit code when it ends.
pub(crate) fn main(args: &[OsString]) -> i32 {
    let [parent, library, config] = args else { return 2 };
    let Some(parent) = parent.to_str().and_then(|pid| pid.parse().ok()) else { return 2 };
    if !bind_to_parent(parent) {
        return 1;
    }
    let mut config_file = b"--config-file=".to_vec();
    config_file.extend_from_slice(config.as_bytes());
    let Ok(config_file) = CString::new(config_file) else { return 2 };
    let arguments: Result<Vec<CString>, _> =
        ["--log-level=information", "--multiquery", "--output-format=TabSeparated", "--query", SESSION]
            .into_iter()
            .map(CString::new)
            .collect();
    let Ok(arguments) = arguments else { return 2 };
    let mut argv: Vec<CString> = vec![c"clickhouse".to_owned(), config_file];
    argv.extend(arguments);
    match run(library, &argv) {
        Ok(()) => {
            eprintln!("the server's session has ended");
            0
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

#[expect(unsafe_code, reason = "ClickHouse comes as a C library")]
fn run(library: &OsString, argv: &[CString]) -> Result<(), libloading::Error> {
    // SAFETY: the library is the package this crate installed and checked; its initialisers run on this otherwise idle
    // thread of a process that does nothing else.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL)? };
    // SAFETY: the package's header declares `local_result_v2 * chdb_query_cmdline(int argc, char ** argv)`; the result
    // is used as an opaque pointer only.
    let query: Symbol<QueryCmdline> = unsafe { library.get(b"chdb_query_cmdline\0")? };
    let mut pointers: Vec<*mut c_char> = argv.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    pointers.push(std::ptr::null_mut());
    // SAFETY: `pointers` holds `count` NUL-terminated strings and a closing null, all alive until the call returns; the
    // library only reads them. The result is left to the process's end, which follows at once.
    let _result = unsafe { query(count, pointers.as_mut_ptr()) };
    // Its threads may still run: unloading the code under them would crash.
    std::mem::forget(library);
    Ok(())
}

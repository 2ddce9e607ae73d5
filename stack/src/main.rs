//! The supervisor's executable for programs that cannot play it themselves (test executables), and `hold`: a stack for
//! as long as this process lives.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use auditstream_stack::{Options, Stack, StackError, hook};

const USAGE: &str = "usage: auditstream-stack hold [NAME]\n\
    Starts Kafka and ClickHouse, prints how to reach them as one line of JSON, and stops them when stdin closes\n\
    or this process ends.\n";

fn main() -> ExitCode {
    hook();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let name = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hold"] => "",
        ["hold", name] => name,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match hold(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(name: &str) -> Result<(), StackError> {
    let stack = Stack::start(Options::named(name))?;
    let state = serde_json::to_string(&stack.state()?).map_err(|e| StackError::Failed(e.to_string()))?;
    // A reader that is gone shows on stdin as well.
    let _ = writeln!(io::stdout(), "{state}");
    let _ = io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

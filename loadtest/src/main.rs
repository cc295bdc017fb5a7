//! A load test for WAMP routers: sessions, calls and events, and what they cost the router.

mod arguments;
mod bare;
mod clock;
mod command;
mod crew;
mod html;
mod idle;
mod listen;
mod nats;
mod outcome;
mod pace;
mod payload;
mod placement;
mod plan;
mod pool;
mod ports;
mod process;
mod pubsub;
mod router;
mod rpc;
mod server;
mod stage;
mod tally;
mod target;
mod wamp;
mod websocket;
mod work;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, Common};
use crate::outcome::Outcome;
use crate::stage::write_to;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Command::Connect(it) => finish(&it.common, command::connect::run(it)),
        Command::Rpc(it) => finish(&it.common, command::rpc::run(it)),
        Command::Pubsub(it) => finish(&it.common, command::pubsub::run(it)),
        Command::Mixed(it) => finish(&it.common, command::mixed::run(it)),
        Command::Stall(it) => finish(&it.common, command::stall::run(it)),
        Command::Flood(it) => finish(&it.common, command::flood::run(it)),
        Command::Database(it) => finish(&it.common, command::database::run(it)),
        Command::Storm(it) => finish(&it.common, command::storm::run(it)),
        Command::Bare(it) => bare::run(it.listen).map(|()| true).map_err(|error| error.to_string()),
        Command::Worker => worker::run().map(|()| true).map_err(|error| error.to_string()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what came of it, in every form that is wanted; whether nothing went wrong.
fn finish(common: &Common, outcome: Result<Outcome, String>) -> Result<bool, String> {
    let outcome = outcome?;
    let is_text_wanted = common.json.as_ref().is_none_or(|path| path.as_os_str() != "-");
    if is_text_wanted {
        print!("{}", outcome.text());
        if !common.quiet
            && let Some(configuration) = &outcome.configuration
        {
            println!("configuration in effect:");
            let lines = configuration
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                println!("  {line}");
            }
        }
    }
    if let Some(path) = &common.json {
        let text = serde_json::to_string_pretty(&outcome.json()).map_err(|error| error.to_string())?;
        write_to(path, &text)?;
    }
    if let Some(path) = &common.html {
        write_to(path, &html::report(&outcome)?)?;
    }
    Ok(outcome.problems.is_empty())
}

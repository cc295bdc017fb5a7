//! Events, in a closed loop or at a pace.

use crate::arguments::PubSub;
use crate::outcome::Outcome;
use crate::plan::{Job, Plan, PubSubJob};
use crate::stage::Stage;

pub(crate) fn run(arguments: &PubSub) -> Result<Outcome, String> {
    let counts = [arguments.publishers, arguments.subscribers, arguments.topics, arguments.flight];
    if counts.contains(&0) || arguments.rate.is_some_and(|rate| rate <= 0.0) {
        return Err(
            "there is nothing to do without publishers, subscribers, topics and publications".to_owned()
        );
    }
    if arguments.topics > arguments.subscribers {
        return Err("every topic needs a subscriber".to_owned());
    }
    let stage = Stage::set(&arguments.common)?;
    let pace = super::pace(arguments.rate, arguments.flight);
    let acknowledged = if arguments.acknowledge { ", acknowledged" } else { "" };
    let title = format!(
        "events, {} publishers on {}, {} subscribers on {}, {} topics, {pace}{acknowledged}",
        arguments.publishers,
        arguments.publishers_on,
        arguments.subscribers,
        arguments.subscribers_on,
        arguments.topics
    );
    let plans: Vec<Plan> = (0..arguments.processes)
        .map(|number| {
            stage.plan(Job::PubSub(PubSubJob {
                prefix: format!("loadtest.pubsub.{}.{number}", std::process::id()),
                publishers: arguments.publishers,
                subscribers: arguments.subscribers,
                topics: arguments.topics,
                flight: arguments.flight,
                acknowledge: arguments.acknowledge,
                rate: arguments.rate,
                stalled: 0,
                publishers_on: arguments.publishers_on.clone(),
                subscribers_on: arguments.subscribers_on.clone(),
            }))
        })
        .collect();
    let mut outcome = stage.outcome(&title);
    let measured = stage.measure(&plans, "events")?;
    measured.tell("event", &mut outcome);
    outcome.figure("publications", "publications", measured.tally.publications as f64, "");
    Ok(outcome)
}

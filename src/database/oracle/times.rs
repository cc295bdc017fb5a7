//! Times and intervals of Oracle as ISO 8601, both ways.

use oracle::sql_type::{IntervalDS, IntervalYM, Timestamp};

/// `2026-11-26T15:04:05.25+01:00`; without a zone where the database has none.
pub(super) fn timestamp(value: &Timestamp) -> String {
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}",
        value.year(),
        value.month(),
        value.day(),
        value.hour(),
        value.minute(),
        value.second(),
        fraction(value.nanosecond()),
    );
    if value.with_tz() {
        let offset = value.tz_offset();
        if offset == 0 {
            text.push('Z');
        } else {
            let minutes = offset.abs() / 60;
            let sign = if offset < 0 { '-' } else { '+' };
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
    }
    text
}

fn fraction(nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return String::new();
    }
    format!(".{nanoseconds:09}").trim_end_matches('0').to_owned()
}

/// Reads RFC 3339, a time without zone, or a date. `keeps_zone`: else it becomes the same moment in UTC.
pub(super) fn parse_timestamp(text: &str, keeps_zone: bool) -> Option<Timestamp> {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let mut parts = date.strip_prefix('-').unwrap_or(date).split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.parse::<u32>().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (year, month, day) = (number(4)? as i32, number(2)?, number(2)?);
    let year = if date.starts_with('-') { -year } else { year };
    if parts.next().is_some() {
        return None;
    }
    let (time, zone) = match time {
        None => ("00:00:00", None),
        Some(time) => match time.find(['Z', 'z', '+', '-']) {
            Some(at) => (&time[..at], Some(&time[at..])),
            None => (time, None),
        },
    };
    let offset = match zone {
        Some(zone) => Some(parse_offset(zone)?),
        None => None,
    };
    let (clock, nanosecond) = match time.split_once('.') {
        Some((clock, digits)) => (clock, parse_fraction(digits)?),
        None => (time, 0),
    };
    let mut parts = clock.split(':').map(|part| part.parse::<u32>().ok().filter(|_| part.len() == 2));
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let Some(offset) = offset else {
        let plain = Timestamp::new(year, month, day, hour, minute, second, nanosecond).ok()?;
        return if keeps_zone { plain.and_tz_offset(0).ok() } else { Some(plain) };
    };
    if keeps_zone {
        let plain = Timestamp::new(year, month, day, hour, minute, second, nanosecond).ok()?;
        return plain.and_tz_offset(offset).ok();
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second) - i64::from(offset);
    let days = days_of(year.into(), month, day) + seconds.div_euclid(86_400);
    let (year, month, day) = date_of(days);
    let seconds = seconds.rem_euclid(86_400) as u32;
    Timestamp::new(year as i32, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60, nanosecond).ok()
}

fn parse_offset(zone: &str) -> Option<i32> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let digits = zone[1..].replace(':', "");
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i32>().ok());
    let (hours, minutes) = match digits.len() {
        2 => (number(Some(&digits))?, 0),
        4 => (number(digits.get(..2))?, number(digits.get(2..))?),
        _ => return None,
    };
    let seconds = (hours * 60 + minutes) * 60;
    (hours <= 15 && minutes <= 59).then_some(if zone.starts_with('-') { -seconds } else { seconds })
}

/// Nanoseconds; more digits than that are cut off.
fn parse_fraction(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}")[..9].parse().ok()
}

/// Days since 1970 of the Gregorian calendar.
fn days_of(year: i64, month: u32, day: u32) -> i64 {
    // Years begin in March, so that the day that may be missing is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + of_year - 719_468
}

fn date_of(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let in_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * in_era + in_era / 4 - in_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + in_era + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// `P1Y2M`, `-P3M`.
pub(super) fn year_month(value: &IntervalYM) -> String {
    let (years, months) = (value.years(), value.months());
    let sign = if years < 0 || months < 0 { "-" } else { "" };
    let mut text = format!("{sign}P");
    for (number, unit) in [(years.abs(), 'Y'), (months.abs(), 'M')] {
        if number != 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.ends_with('P') { "P0M".to_owned() } else { text }
}

/// `P1DT2H3M4.5S`, `-PT5S`.
pub(super) fn day_second(value: &IntervalDS) -> String {
    let all = [value.days(), value.hours(), value.minutes(), value.seconds(), value.nanoseconds()];
    let sign = if all.iter().any(|part| *part < 0) { "-" } else { "" };
    let [days, hours, minutes, seconds, nanoseconds] = all.map(i32::abs);
    let mut text = format!("{sign}P");
    if days != 0 {
        text.push_str(&format!("{days}D"));
    }
    let mut time = String::new();
    for (number, unit) in [(hours, 'H'), (minutes, 'M')] {
        if number != 0 {
            time.push_str(&format!("{number}{unit}"));
        }
    }
    if seconds != 0 || nanoseconds != 0 {
        time.push_str(&format!("{seconds}{}S", fraction(nanoseconds as u32)));
    }
    if !time.is_empty() {
        text.push('T');
        text.push_str(&time);
    }
    if text.ends_with('P') { "PT0S".to_owned() } else { text }
}

/// The numbers of an ISO 8601 duration by their units, and what is behind the point of the last one.
fn parts(text: &str, units: &str) -> Option<(i32, Vec<i32>, u32)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let rest = rest.strip_prefix('P')?;
    let (mut numbers, mut nanoseconds) = (vec![0; units.chars().count()], 0);
    let (mut from, mut digits, mut point) = (0, String::new(), None::<String>);
    for character in rest.chars() {
        match character {
            '0'..='9' => point.as_mut().unwrap_or(&mut digits).push(character),
            '.' if point.is_none() => point = Some(String::new()),
            unit => {
                // Units are in their order, and each at most once; T stands for itself.
                let place = from + units.chars().skip(from).position(|known| known == unit)?;
                from = place + 1;
                if unit == 'T' {
                    if !digits.is_empty() || point.is_some() {
                        return None;
                    }
                    continue;
                }
                numbers[place] = std::mem::take(&mut digits).parse().ok()?;
                if let Some(point) = point.take() {
                    if unit != 'S' {
                        return None;
                    }
                    nanoseconds = parse_fraction(&point)?;
                }
            }
        }
    }
    (digits.is_empty() && point.is_none() && from > 0).then_some((sign, numbers, nanoseconds))
}

pub(super) fn parse_year_month(text: &str) -> Option<IntervalYM> {
    let (sign, numbers, _) = parts(text, "YM")?;
    let months = numbers[0].checked_mul(12)?.checked_add(numbers[1])?;
    IntervalYM::new(sign * (months / 12), sign * (months % 12)).ok()
}

pub(super) fn parse_day_second(text: &str) -> Option<IntervalDS> {
    // The M of minutes stands behind the T alone.
    let (sign, numbers, nanoseconds) = parts(text, "DTHMS")?;
    let is_time = text.contains(['H', 'M', 'S']);
    if is_time != text.contains('T') {
        return None;
    }
    let seconds = i64::from(numbers[2]) * 3600 + i64::from(numbers[3]) * 60 + i64::from(numbers[4]);
    let days = i64::from(numbers[0]) + seconds / 86_400;
    let part = |number: i64| i32::try_from(number).ok().map(|number| sign * number);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    IntervalDS::new(part(days)?, part(hours)?, part(minutes)?, part(seconds % 60)?, sign * nanoseconds as i32)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_both_ways() {
        for (text, keeps_zone, back) in [
            ("2026-11-26", false, "2026-11-26T00:00:00"),
            ("2026-11-26T15:04:05.250", false, "2026-11-26T15:04:05.25"),
            ("2026-11-26 15:04", false, "2026-11-26T15:04:00"),
            ("2026-03-01T00:30:00+01:00", false, "2026-02-28T23:30:00"),
            ("2024-02-29T23:30:00-0100", false, "2024-03-01T00:30:00"),
            ("1969-12-31T23:59:59.123456789Z", false, "1969-12-31T23:59:59.123456789"),
            ("2026-11-26T15:04:05+05:30", true, "2026-11-26T15:04:05+05:30"),
            ("2026-11-26T15:04:05", true, "2026-11-26T15:04:05Z"),
            ("2026-11-26T15:04:05-03", true, "2026-11-26T15:04:05-03:00"),
        ] {
            let parsed = parse_timestamp(text, keeps_zone).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(timestamp(&parsed), back, "{text}");
        }
        for wrong in
            ["", "x", "2026-13-01", "2026-1-1", "2026-11-26T25:00", "2026-11-26T15:04:05+xx", "2026-11-26T15"]
        {
            assert!(parse_timestamp(wrong, false).is_none(), "{wrong}");
        }
    }

    #[test]
    fn intervals_both_ways() {
        for (text, back) in [("P1Y2M", "P1Y2M"), ("-P14M", "-P1Y2M"), ("P0M", "P0M"), ("P3Y", "P3Y")] {
            assert_eq!(year_month(&parse_year_month(text).unwrap()), back);
        }
        for (text, back) in [
            ("P1DT2H3M4.5S", "P1DT2H3M4.5S"),
            ("-PT90S", "-PT1M30S"),
            ("PT36H", "P1DT12H"),
            ("P2D", "P2D"),
            ("PT0S", "PT0S"),
        ] {
            assert_eq!(day_second(&parse_day_second(text).unwrap()), back);
        }
        for wrong in ["", "P", "1D", "PT", "P1H", "P1DT", "P1.5D", "PT1M2H", "P1M2Y"] {
            assert!(parse_day_second(wrong).is_none(), "{wrong}");
        }
        assert!(parse_year_month("P2M1Y").is_none());
    }
}

//! The timestamp extension of MessagePack (type -1) as RFC 3339 text.

/// The text of a timestamp in its 32, 64 or 96 bit form; `None` where it is none of them, or beyond the years
/// 0000 to 9999 that RFC 3339 has.
pub(super) fn of_extension(data: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = match *data {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [_, _, _, _, _, _, _, _] => {
            let whole = u64::from_be_bytes(data.try_into().ok()?);
            ((whole & 0x3_ffff_ffff) as i64, (whole >> 34) as u32)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    rfc_3339(seconds, nanoseconds)
}

/// The text of a moment, counted in microseconds from 1970.
#[must_use]
pub fn timestamp_text(since_1970_us: u64) -> String {
    let nanoseconds = (since_1970_us % 1_000_000) as u32 * 1000;
    // Clocks that show the year 10,000 are wrong anyhow.
    rfc_3339((since_1970_us / 1_000_000) as i64, nanoseconds).unwrap_or_default()
}

/// The text of a moment: seconds since 1970, and nanoseconds.
#[must_use]
pub fn rfc_3339(seconds: i64, nanoseconds: u32) -> Option<String> {
    if nanoseconds > 999_999_999 {
        return None;
    }
    let (year, month, day) = date(seconds.div_euclid(86_400))?;
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanoseconds > 0 {
        text.push_str(format!(".{nanoseconds:09}").trim_end_matches('0'));
    }
    text.push('Z');
    Some(text)
}

/// The moment that a text of RFC 3339 tells, in microseconds since 1970; what is smaller than that is left out.
#[must_use]
pub fn parse_rfc_3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mark = |at: usize, marks: &[u8]| marks.contains(text.as_bytes().get(at).unwrap_or(&0)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, marks) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")] {
        mark(at, marks)?;
    }
    let days = days(year, month, day)?;
    // The second 60 of a minute is a leap second.
    if hour > 23 || minute > 59 || second > 60 || date(days)? != (year, month, day) {
        return None;
    }
    let mut at = 19;
    let mut microseconds = 0;
    if mark(at, b".").is_some() {
        let fraction = text.get(at + 1..)?;
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits: String = fraction[..length].chars().chain("000000".chars()).take(6).collect();
        microseconds = (length > 0).then(|| digits.parse::<i64>().ok())??;
        at += 1 + length;
    }
    let offset_minutes = match text.get(at..)?.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    Some(seconds * 1_000_000 + microseconds)
}

/// The days from 1970-01-01 to a day: the other way round than [`date`], which finds days that there are not.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468)
}

/// Year, month and day of a day counted from 1970-01-01, in years 0000 to 9999 of the Gregorian calendar.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    // 0000-01-01 and 9999-12-31.
    if !(-719_528..=2_932_896).contains(&days) {
        return None;
    }
    // Years that begin in March put the leap day last; eras of 400 years all have 146,097 days.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Some((era * 400 + year_of_era + i64::from(month <= 2), month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_seconds(seconds: i64) -> Option<String> {
        let mut data = vec![0; 4];
        data.extend_from_slice(&seconds.to_be_bytes());
        of_extension(&data)
    }

    #[test]
    fn known_moments() {
        assert_eq!(of_extension(&[0; 4]).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(of_extension(&1_000_000_000u32.to_be_bytes()).unwrap(), "2001-09-09T01:46:40Z");
        assert_eq!(of_seconds(951_782_400).unwrap(), "2000-02-29T00:00:00Z");
        assert_eq!(of_seconds(-1).unwrap(), "1969-12-31T23:59:59Z");
        assert_eq!(of_seconds(-62_167_219_200).unwrap(), "0000-01-01T00:00:00Z");
        assert_eq!(of_seconds(253_402_300_799).unwrap(), "9999-12-31T23:59:59Z");
        let half_second = (500_000_000u64 << 34 | 1).to_be_bytes();
        assert_eq!(of_extension(&half_second).unwrap(), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn what_is_no_timestamp() {
        assert_eq!(of_seconds(-62_167_219_201), None);
        assert_eq!(of_seconds(253_402_300_800), None);
        assert_eq!(of_seconds(i64::MIN), None);
        assert_eq!(of_seconds(i64::MAX), None);
        for length in [0, 1, 3, 5, 7, 9, 11, 13] {
            assert_eq!(of_extension(&vec![0; length]), None, "{length} bytes");
        }
        assert_eq!(of_extension(&(1_000_000_000u64 << 34).to_be_bytes()), None);
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        for (text, seconds, microseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-01-01t00:00:00.5z", 0, 500_000),
            ("1970-01-01 00:00:00.123456789Z", 0, 123_456),
            ("2000-02-29T00:00:00Z", 951_782_400, 0),
            ("2001-09-09T03:46:40+02:00", 1_000_000_000, 0),
            ("2001-09-08T23:16:40.001-02:30", 1_000_000_000, 1_000),
            ("1969-12-31T23:59:59Z", -1, 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800, 0),
        ] {
            assert_eq!(parse_rfc_3339(text), Some(seconds * 1_000_000 + microseconds), "{text}");
        }
        for text in [
            "",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-02-29T01:46:40Z",
            "2001-13-01T01:46:40Z",
            "2001-00-01T01:46:40Z",
            "2001-01-01T24:00:00Z",
            "2001-01-01T01:60:00Z",
            "2001-01-01T01:00:61Z",
            "2001-01-01T01:00:00.Z",
            "2001-01-01T01:00:00+2:00",
            "2001-01-01T01:00:00+24:00",
            "2001-01-01T01:00:00Z ",
            "2001-01-01T+1:00:00Z",
            "20\u{e4}1-01-01T01:00:00Z",
        ] {
            assert_eq!(parse_rfc_3339(text), None, "{text}");
        }
        for seconds in [-62_167_219_200, -1, 0, 951_782_399, 4_102_444_799, 253_402_300_799] {
            let text = rfc_3339(seconds, 250_000_000).unwrap();
            assert_eq!(parse_rfc_3339(&text), Some(seconds * 1_000_000 + 250_000), "{text}");
        }
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = date(-719_528).unwrap();
        assert_eq!(before, (0, 1, 1));
        for days in -719_527..=2_932_896 {
            let (year, month, day) = date(days).unwrap();
            let (before_year, before_month, before_day) = before;
            let leap = before_year % 4 == 0 && (before_year % 100 != 0 || before_year % 400 == 0);
            let length = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let expected = if before_day < length[before_month as usize - 1] {
                (before_year, before_month, before_day + 1)
            } else if before_month < 12 {
                (before_year, before_month + 1, 1)
            } else {
                (before_year + 1, 1, 1)
            };
            assert_eq!((year, month, day), expected);
            before = expected;
        }
    }
}

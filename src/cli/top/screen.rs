//! The view on a whole screen: news and keys go into the model, and the model onto the screen.

use std::time::SystemTime;

use ratatui::Frame;

use super::super::exit::Failure;
use super::super::stage::{Key, Leave, Stage, Theme, play};
use super::link::{Link, News};
use super::model::Top;
use super::view::draw;

/// Shows it until somebody has seen enough.
pub(super) async fn run(top: Top, link: Link) -> Result<(), Failure> {
    let mut watching = Watching { top, link };
    play(&mut watching).await
}

struct Watching {
    top: Top,
    link: Link,
}

impl Stage for Watching {
    async fn hear(&mut self) -> Result<(), Failure> {
        match self.link.news().await {
            None => Err(Failure::error("the service is no longer heard")),
            Some(News::Ended(failure)) => Err(failure),
            Some(news) => {
                self.top.hear(news, SystemTime::now());
                Ok(())
            }
        }
    }

    fn press(&mut self, key: Key, now: SystemTime) -> Option<Leave> {
        self.top.press(key, now)
    }

    fn ask(&mut self) {
        for asked in self.top.take_asks() {
            self.link.act(asked);
        }
        self.link.want(self.top.wanted());
    }

    fn tick(&mut self, now: SystemTime) -> bool {
        self.top.tick(now)
    }

    fn draw(&self, theme: Theme, now: SystemTime, frame: &mut Frame<'_>) {
        draw(&self.top, theme, now, frame);
    }
}

//! stand-in
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let files: Vec<std::path::PathBuf> = args
        .iter()
        .skip(2)
        .filter(|a| *a != "--config")
        .map(Into::into)
        .collect();
    let (settings, origins) = match switchboard::settings::Settings::load(&files, &[]) {
        Ok(x) => x,
        Err(p) => {
            eprintln!("{p}");
            std::process::exit(78)
        }
    };
    let rt = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    rt.block_on(async {
        let app = switchboard::app::App::bind(settings, &origins).unwrap();
        app.announce(&mut std::io::stdout()).unwrap();
        app.run().await;
    });
    rt.shutdown_background();
}
